//! The gate before all services of a port: it recognises the caller, asks the table, and lets the call through with the caller attached, or
//! answers it. No service can be reached past it. Knows paths and certificates, no messages.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tonic::{Status, body::Body, codegen::Service, codegen::http};

use super::{
    access,
    caller::{Caller, Recognition},
};

/// See the head of the module.
#[derive(Debug, Clone)]
pub struct Gate<S> {
    inner: S,
    recognition: Recognition,
}

impl<S> Gate<S> {
    /// Puts the gate before `inner`.
    pub fn new(inner: S, recognition: Recognition) -> Self {
        Self { inner, recognition }
    }
}

/// The caller of the request at hand, if they may make it.
fn admit<B>(recognition: &Recognition, request: &http::Request<B>) -> Result<Caller, Status> {
    let path = request.uri().path();
    let Some(who) = access::who(path) else {
        return Err(Status::unimplemented(format!("there is no call {path:?}")));
    };
    let caller = recognition.caller(request.extensions())?;
    if who.admits(&caller) {
        return Ok(caller);
    }
    Err(match caller {
        Caller::Nobody => Status::unauthenticated("this call takes a client certificate of the cluster"),
        caller => Status::permission_denied(format!("{} may not call {path}", caller.by())),
    })
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match admit(&self.recognition, &request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Box::pin(self.inner.call(request))
            }
            Err(status) => {
                tracing::debug!(path = request.uri().path(), %status, "a call is refused at the gate");
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn refusal(recognition: &Recognition, path: &str) -> Option<Code> {
        let request = http::Request::builder().uri(path).body(()).unwrap();
        admit(recognition, &request).err().map(|status| status.code())
    }

    #[test]
    fn what_is_not_in_the_table_is_refused_and_so_is_who_shows_nothing() {
        let strict = Recognition::certificates("london".parse().unwrap());
        let apply = "/supercloud.v1.WorkloadService/Apply";
        assert_eq!(refusal(&strict, apply), Some(Code::Unauthenticated));
        assert_eq!(refusal(&strict, "/supercloud.v1.SchedulerService/Join"), None);
        assert_eq!(refusal(&strict, "/grpc.health.v1.Health/Check"), None);
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_eq!(refusal(&strict, reflection), Some(Code::Unauthenticated));
        for recognition in [&strict, &Recognition::Dev] {
            assert_eq!(
                refusal(recognition, "/supercloud.v1.WorkloadService/Burn"),
                Some(Code::Unimplemented)
            );
        }
        assert_eq!(refusal(&Recognition::Dev, apply), None);
    }
}
