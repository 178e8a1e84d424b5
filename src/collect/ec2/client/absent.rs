//! A build without the feature `ec2`: every call fails and says so.

use std::sync::Arc;

use super::super::meter::{Meter, Outcome};
use super::{Ec2Error, NOT_BUILT_IN, Page, Which};

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
    pub async fn page(&self, _which: &Which, _size: Option<i32>, _token: Option<String>) -> Result<Page, Ec2Error> {
        Err(self.error(Outcome::Error, NOT_BUILT_IN))
    }

    /// An answer that cannot be used.
    pub(in crate::collect::ec2) fn error(&self, outcome: Outcome, what: &str) -> Ec2Error {
        Ec2Error { outcome, why: format!("EC2 DescribeVolumes ({}): {what}", self.region) }
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
