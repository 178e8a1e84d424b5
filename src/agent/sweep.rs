//! `barnacle sweep`: what is attached nowhere in the account, by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use jiff::Timestamp;

use crate::api::{Access, connect};
use crate::config::Config;
use crate::facts::region_of;
use crate::observe::ec2::{BUILT_IN, Hints, Meter, NOT_BUILT_IN, Sweep};
use crate::report::sweep::SweepReport;
use crate::report::text;

/// Sweeps the region of the cluster, or another one.
///
/// # Errors
/// When EC2 or the cluster that was asked for does not answer.
pub async fn run(config: &Config, region: Option<String>) -> anyhow::Result<SweepReport> {
    if let Some(region) = &region
        && region_of(region) != Some(region.as_str())
    {
        bail!("{region:?} is no region: expected one such as eu-west-1");
    }
    if !BUILT_IN {
        bail!("EC2 cannot be asked: {NOT_BUILT_IN}");
    }
    let api = match Access::find(config.kubeconfig.as_deref()).filter(|_| config.kubernetes) {
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
    notes.push(format!(
        "{} of DescribeVolumes, and nothing was changed",
        text::counted(usize::try_from(meter.total()).unwrap_or(usize::MAX), "call")
    ));
    Ok(SweepReport::of(&sweep.found, &sizes, notes, Timestamp::now()))
}

/// What the settings say of the cluster and of who is asked.
pub(super) fn hints(config: &Config) -> Hints {
    Hints { endpoint: config.ec2_endpoint.clone(), region: None, cluster: config.cluster_name.clone() }
}
