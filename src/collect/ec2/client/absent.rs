//! A build without the feature `ec2`: every call fails and says so.

use std::sync::Arc;

use super::super::meter::{Meter, Operation, Outcome};
use super::{Ec2Error, NOT_BUILT_IN, Page, Request, Which, WhichInstances, WhichInterfaces, WhichSubnets};

/// What may be asked.
pub trait Call: Request {}

impl Call for Which {}
impl Call for WhichInterfaces {}
impl Call for WhichInstances {}
impl Call for WhichSubnets {}

/// Takes the place of the client and makes no call.
#[derive(Debug)]
pub struct Client {
    region: String,
}

impl Client {
    /// Nothing is built.
    #[must_use]
    pub fn new(region: &str, _endpoint: Option<&str>, _meter: Arc<Meter>) -> Self {
        Self { region: region.to_owned() }
    }

    /// The region that would be asked.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Makes no call, so it counts none.
    ///
    /// # Errors
    /// Always, with what to do.
    #[expect(clippy::unused_async, reason = "it replaces a client that waits for the network")]
    pub async fn page<C: Call>(
        &self,
        _which: &C,
        _size: Option<i32>,
        _token: Option<String>,
    ) -> Result<Page<C::Item>, Ec2Error> {
        Err(self.error(C::OPERATION, Outcome::Error, NOT_BUILT_IN))
    }

    /// An answer that cannot be used.
    pub(in crate::collect::ec2) fn error(&self, operation: Operation, outcome: Outcome, what: &str) -> Ec2Error {
        Ec2Error { outcome, why: format!("EC2 {} ({}): {what}", operation.name(), self.region) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Ec2VolumeState;

    #[tokio::test]
    async fn a_build_without_the_client_makes_no_call_and_says_how_to_get_one() {
        let meter = Arc::<Meter>::default();
        let client = Client::new("eu-west-1", None, Arc::clone(&meter));
        let which = Which::State(Ec2VolumeState::InUse);
        let error = client.page(&which, None, None).await.unwrap_err();
        assert!(error.why.contains(client.region()) && error.why.contains("--features ec2"), "{}", error.why);
        assert_eq!(meter.total(), 0);
    }
}
