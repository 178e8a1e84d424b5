//! `barnacle sweep`: what is attached nowhere in the account, by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use jiff::Timestamp;

use crate::collect::ec2::{BUILT_IN, Hints, Meter, NOT_BUILT_IN, Operation, Sweep};
use crate::config::Config;
use crate::facts::{is_ec2_id, region_of};
use crate::kube_api::connect;
use crate::report::sweep::SweepReport;
use crate::report::text;

/// Sweeps the region of the cluster, or another one; and the VPC of the cluster, or another one.
///
/// # Errors
/// When EC2 or the cluster that was asked for does not answer.
pub async fn run(config: &Config, region: Option<String>, vpc: Option<String>) -> anyhow::Result<SweepReport> {
    if let Some(region) = &region
        && region_of(region) != Some(region.as_str())
    {
        bail!("{region:?} is no region: expected one such as eu-west-1");
    }
    if let Some(vpc) = vpc.as_deref().filter(|vpc| !is_ec2_id(vpc, "vpc")) {
        bail!("{vpc:?} is no VPC: expected one such as vpc-0123456789abcdef0");
    }
    let access = super::kube_connection::access(config).filter(|_| config.kubernetes);
    if access.is_none() && region.is_none() {
        bail!(no_region(config.kubernetes));
    }
    if !BUILT_IN {
        bail!("EC2 cannot be asked: {NOT_BUILT_IN}");
    }
    let api = match access {
        Some(access) => Some(connect(&access, "sweep").await?),
        None => None,
    };
    let hints = Hints { region, ..hints(config) };
    let meter = Arc::new(Meter::default());
    let sweep = Sweep::make(api.as_ref(), &hints, &meter).await.map_err(|why| anyhow::anyhow!("{why}"))?;
    let mut notes = Vec::new();
    let sizes = sweep.sizes().await.unwrap_or_else(|error| {
        notes.push(format!("how much the account has in all is not known: {error}"));
        BTreeMap::new()
    });
    let interfaces = sweep.interfaces(api.as_ref(), vpc.as_deref()).await;
    notes.push(format!("{}, and nothing was changed", calls(&meter)));
    Ok(SweepReport::of(&sweep.found, &sizes, notes, Timestamp::now()).with_interfaces(&interfaces))
}

/// What was called, and how often.
fn calls(meter: &Meter) -> String {
    let all = [Operation::DescribeVolumes, Operation::DescribeInstances, Operation::DescribeNetworkInterfaces];
    let made = all.into_iter().map(|of| (of, usize::try_from(meter.of(of)).unwrap_or(usize::MAX)));
    let words = made
        .filter(|(_, calls)| *calls > 0)
        .map(|(of, calls)| format!("{} of {}", text::counted(calls, "call"), of.name()));
    words.collect::<Vec<_>>().join(", ")
}

/// Why it is not known which region to list, what was tried, and what to do.
fn no_region(cluster: bool) -> String {
    let cluster = match cluster {
        true => {
            "no cluster was asked for it: neither kubeconfig nor KUBECONFIG is set, and this is no pod with a service account"
        }
        false => "no cluster was asked for it, as the setting kubernetes is off",
    };
    format!(
        "the region is not known: neither --region nor AWS_REGION is set, and {cluster}. Give --kubeconfig FILE, which also \
         shows the volumes that the cluster still has, or only --region REGION: then no volume is listed as this cluster's"
    )
}

/// What the settings say of the cluster and of who is asked.
pub(super) fn hints(config: &Config) -> Hints {
    Hints { endpoint: config.ec2_endpoint.clone(), region: None, cluster: config.cluster_name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cluster_and_a_region_it_says_what_was_tried_and_what_to_do() {
        let config = Config { kubernetes: false, ..Config::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let why = runtime.block_on(run(&config, None, None)).unwrap_err().to_string();
        for part in ["--region", "AWS_REGION", "the setting kubernetes is off", "Give --kubeconfig FILE"] {
            assert!(why.contains(part), "{part}: {why}");
        }
        assert!(no_region(true).contains("neither kubeconfig nor KUBECONFIG is set"));
    }
}
