//! Lists of hosts and of requests, in the columns of the trace `openb`: those of the folder of traces, or files that were named. Columns that are not
//! named here are not looked at.

use std::path::{Path, PathBuf};

use supercloud_proto::amount::{Amounts, Bytes, MilliCpu};
use supercloud_tests::{Outcome, Wrong, programs, wrong};

use crate::Options;

/// Names the folder of traces.
const TRACES: &str = "SUPERCLOUD_TRACES";
/// The folder of traces where none is named, from the checkout.
const BESIDE: &str = "../shared/traces";
/// What of that folder is read.
const OPENB: &str = "openb";
const MIB: u64 = 1 << 20;
/// All of a GPU, in the lists.
const WHOLE_GPU: u64 = 1_000;

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Processor and memory.
    pub(crate) amounts: Amounts,
    /// How many GPUs.
    pub(crate) gpus: u32,
    /// Their model.
    pub(crate) model: String,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    /// Processor and memory.
    pub(crate) amounts: Amounts,
    /// How many GPUs.
    pub(crate) gpus: u32,
    /// How much of each, in thousandths.
    pub(crate) share: u32,
    /// Any of these models; empty: any.
    pub(crate) models: Vec<String>,
}

impl Request {
    /// What it asks for of GPUs, in thousandths of one.
    pub(super) fn gpu_millis(&self) -> u64 {
        u64::from(self.gpus) * u64::from(self.share)
    }
}

/// Where lists are taken from.
#[derive(Debug)]
pub(super) enum Source {
    /// The folder of `openb`.
    Traces(PathBuf),
    /// Files that were named.
    Files { hosts: PathBuf, requests: PathBuf },
}

impl Source {
    /// Files that were named, or else the folder that [`TRACES`] names, or the one beside the checkout.
    pub(super) fn find(options: &Options) -> Outcome<Self> {
        if let (Some(hosts), Some(requests)) = (options.hosts.clone(), options.requests.clone()) {
            return Ok(Self::Files { hosts, requests });
        }
        let named = std::env::var_os(TRACES).map(PathBuf::from);
        let folder = named.unwrap_or_else(|| programs::repository().join(BESIDE)).join(OPENB);
        if folder.is_dir() { Ok(Self::Traces(folder)) } else { wrong(none_in(&folder)) }
    }

    /// The hosts.
    pub(super) fn hosts(&self, of_traces: &str) -> Outcome<Vec<Host>> {
        match self {
            Self::Traces(folder) => hosts(&folder.join(of_traces)),
            Self::Files { hosts: file, .. } => hosts(file),
        }
    }

    /// The requests.
    pub(super) fn requests(&self, of_traces: &str) -> Outcome<Vec<Request>> {
        match self {
            Self::Traces(folder) => requests(&folder.join(of_traces)),
            Self::Files { requests: file, .. } => requests(file),
        }
    }
}

fn none_in(folder: &Path) -> String {
    format!(
        "no traces in {}: expected {TRACES} to name a folder with {OPENB}/, or {BESIDE} beside the checkout, or --hosts FILE and --requests FILE",
        folder.display()
    )
}

/// The hosts of a file: `cpu_milli`, `memory_mib`, and, where there are GPUs, `gpu` and `model`.
pub(crate) fn hosts(file: &Path) -> Outcome<Vec<Host>> {
    read(file, |line| {
        Ok(Host {
            amounts: line.amounts()?,
            gpus: line.number_or("gpu", 0)?.try_into()?,
            model: line.text("model").unwrap_or_default().to_owned(),
        })
    })
}

/// The requests of a file: `cpu_milli`, `memory_mib`, and, where GPUs are asked for, `num_gpu`, `gpu_milli` and `gpu_spec`.
pub(crate) fn requests(file: &Path) -> Outcome<Vec<Request>> {
    read(file, |line| {
        let models = line.text("gpu_spec").unwrap_or_default().split('|').filter(|model| !model.is_empty());
        Ok(Request {
            amounts: line.amounts()?,
            gpus: line.number_or("num_gpu", 0)?.try_into()?,
            share: line.number_or("gpu_milli", WHOLE_GPU)?.try_into()?,
            models: models.map(str::to_owned).collect(),
        })
    })
}

fn read<T>(file: &Path, record: impl Fn(Line<'_>) -> Outcome<T>) -> Outcome<Vec<T>> {
    let told = |error: &dyn std::fmt::Display| Wrong(format!("{}: {error}", file.display()));
    let mut lines = csv::Reader::from_path(file).map_err(|error| told(&error))?;
    let names = lines.headers().map_err(|error| told(&error))?.clone();
    let mut records = Vec::new();
    for values in lines.records() {
        let values = values.map_err(|error| told(&error))?;
        records.push(record(Line { names: &names, values: &values }).map_err(|error| told(&error))?);
    }
    Ok(records)
}

/// One line, with the names of its columns.
#[derive(Clone, Copy)]
struct Line<'l> {
    names: &'l csv::StringRecord,
    values: &'l csv::StringRecord,
}

impl<'l> Line<'l> {
    fn text(&self, column: &str) -> Option<&'l str> {
        self.values.get(self.names.iter().position(|name| name == column)?)
    }

    fn number(&self, column: &str) -> Outcome<u64> {
        let names = self.names;
        let text =
            self.text(column).ok_or_else(|| Wrong(format!("expected a column {column}, found {names:?}")))?;
        let number = text.parse();
        number.or_else(|_| {
            wrong(format!("{column}: expected a whole number, found {text:?} in {:?}", self.values))
        })
    }

    /// Of a column that may be missing, or empty.
    fn number_or(&self, column: &str, absent: u64) -> Outcome<u64> {
        if self.text(column).is_some_and(|text| !text.is_empty()) { self.number(column) } else { Ok(absent) }
    }

    fn amounts(&self) -> Outcome<Amounts> {
        let memory = Bytes(self.number("memory_mib")?.saturating_mul(MIB));
        Ok(Amounts { cpu: MilliCpu(self.number("cpu_milli")?), memory, disk: Bytes(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_is_wrong_with_it() -> Outcome {
        let file = tempfile::NamedTempFile::new()?;
        for (text, expected) in [
            ("sn,cpu_milli\na,1\n", "expected a column memory_mib"),
            ("cpu_milli,memory_mib\n1,x\n", "memory_mib: expected a whole number, found \"x\""),
        ] {
            std::fs::write(file.path(), text)?;
            let error = requests(file.path()).err().ok_or("it was read")?;
            assert!(error.to_string().contains(expected), "{error}");
        }
        let amounts = Amounts { cpu: MilliCpu(3_000), memory: Bytes(2 * MIB), disk: Bytes(0) };
        std::fs::write(file.path(), "sn,memory_mib,cpu_milli,gpu,model\na,2,3000,4,T4\n")?;
        assert_eq!(hosts(file.path())?, [Host { amounts, gpus: 4, model: "T4".to_owned() }]);
        std::fs::write(file.path(), "num_gpu,memory_mib,cpu_milli,gpu_milli,gpu_spec\n1,2,3000,500,T4|P4\n")?;
        let models = vec!["T4".to_owned(), "P4".to_owned()];
        assert_eq!(requests(file.path())?, [Request { amounts, gpus: 1, share: 500, models }]);
        for text in ["memory_mib,cpu_milli\n2,3000\n", "memory_mib,cpu_milli,num_gpu,gpu_milli\n2,3000,,\n"] {
            std::fs::write(file.path(), text)?;
            assert_eq!(requests(file.path())?[0].gpus, 0);
        }
        Ok(())
    }
}
