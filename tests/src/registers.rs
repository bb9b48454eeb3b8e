//! Registers over the real API, as `history` describes them: one attempt at one call on one node, and what its end says about what was
//! done. Knows no clock and makes nothing twice.

use supercloud_proto::{
    problem, spec,
    v1::{
        ApplyWorkloadRequest, GetWorkloadRequest, Workload, WorkloadHistoryRequest, WorkloadSpec,
        task_spec::Driver, workload_service_client::WorkloadServiceClient,
    },
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    Outcome, Wrong,
    history::{Answer, Ask, Content, Value},
};

/// The borough of all registers.
pub const BOROUGH: &str = "registers";
/// The variable that is the value.
const VALUE: &str = "VALUE";

/// Registers with a name of their own.
#[derive(Debug, Clone)]
pub struct Registers {
    name: String,
    template: WorkloadSpec,
}

/// What the end of one attempt says.
#[derive(Debug, Clone)]
pub enum Attempt {
    /// An answer for good.
    Answered(Answer),
    /// This attempt did nothing. Another may do better.
    NotDone(Status),
    /// It may have done something. The same request may be made again.
    MaybeDone(Status),
    /// No node may answer like this.
    Absurd(Status),
}

impl Registers {
    /// Registers called `name-0`, `name-1` and so on; they are there once they are written.
    pub fn new(name: &str) -> Outcome<Self> {
        // No instances: what is tested is the log and the state, and there are no hosts.
        let text = format!(
            "workload: {name}\nborough: {BOROUGH}\nkind: service\ncount: 0\n\
             container: {{ image: none, env: {{ {VALUE}: \"0\" }} }}\nresources: {{ cpu: 1m, memory: 16MiB }}\n"
        );
        let spec = spec::parse(&text)?.pop().ok_or_else(|| Wrong("no spec".to_owned()))?;
        Ok(Self { name: name.to_owned(), template: spec.into() })
    }

    fn workload(&self, register: usize) -> String {
        format!("{}-{register}", self.name)
    }

    fn spec(&self, register: usize, value: Value) -> WorkloadSpec {
        let mut spec = self.template.clone();
        spec.workload = self.workload(register);
        for task in &mut spec.tasks {
            if let Some(Driver::Container(container)) = &mut task.driver {
                container.env.insert(VALUE.to_owned(), value.to_string());
            }
        }
        spec
    }

    /// Makes a call once.
    pub async fn attempt(&self, node: Channel, register: usize, ask: Ask, request_id: &str) -> Attempt {
        let answer = match ask {
            Ask::Read => self.read(node, register, false).await.map(|seen| Answer::Content(seen.0, seen.1)),
            Ask::Write(value) => self.write(node, register, value, None, request_id).await,
            Ask::WriteIf(revision, value) => {
                self.write(node, register, value, Some(revision), request_id).await
            }
        };
        match answer {
            Ok(answer) => Attempt::Answered(answer),
            Err(status) => judge(status, ask),
        }
    }

    /// What a register holds, and where in the log that was written; `stale` as the node has it.
    pub async fn read(&self, node: Channel, register: usize, stale: bool) -> Result<(Content, u64), Status> {
        let request =
            GetWorkloadRequest { borough: BOROUGH.to_owned(), workload: self.workload(register), stale };
        let answer = WorkloadServiceClient::new(node).get(request).await?.into_inner();
        let found = answer.workload.and_then(|workload| content(&workload));
        found.ok_or_else(|| Status::data_loss("the answer holds no value"))
    }

    /// The values of a register's kept versions, oldest first.
    pub async fn kept(&self, node: Channel, register: usize) -> Result<Vec<Value>, Status> {
        let request = WorkloadHistoryRequest {
            borough: BOROUGH.to_owned(),
            workload: self.workload(register),
            stale: false,
        };
        let answer = WorkloadServiceClient::new(node).history(request).await?.into_inner();
        let newest_first = answer.revisions.iter().rev().map(|one| one.spec.as_ref().and_then(value));
        newest_first
            .collect::<Option<Vec<Value>>>()
            .ok_or_else(|| Status::data_loss("a revision holds no value"))
    }

    async fn write(
        &self,
        node: Channel,
        register: usize,
        value: Value,
        expect_revision: Option<u64>,
        request_id: &str,
    ) -> Result<Answer, Status> {
        let (request_id, spec) = (request_id.to_owned(), Some(self.spec(register, value)));
        let request = ApplyWorkloadRequest { request_id, spec, expect_revision };
        let answer = WorkloadServiceClient::new(node).apply(request).await?.into_inner();
        Ok(Answer::Written(answer.index))
    }
}

fn content(workload: &Workload) -> Option<(Content, u64)> {
    let value = value(workload.spec.as_ref()?)?;
    Some((Content { revision: workload.revision, value }, workload.changed_index))
}

fn value(spec: &WorkloadSpec) -> Option<Value> {
    match spec.tasks.first()?.driver.as_ref()? {
        Driver::Container(container) => container.env.get(VALUE)?.parse().ok(),
        Driver::Vm(_) => None,
    }
}

/// What a refusal says. A node's own words carry details, in which it says whether anything may have been done; without them it is the
/// connection that failed, at any moment.
fn judge(status: Status, ask: Ask) -> Attempt {
    let nothing_done = problem::of_status(&status).is_some_and(|told| !told.outcome_unknown);
    match (status.code(), ask) {
        (Code::FailedPrecondition, Ask::WriteIf(..)) => Attempt::Answered(Answer::OtherVersion),
        (Code::Unavailable | Code::ResourceExhausted, _) if nothing_done => Attempt::NotDone(status),
        (
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Unknown,
            _,
        ) => Attempt::MaybeDone(status),
        _ => Attempt::Absurd(status),
    }
}
