//! `barnacle sweep`: volumes and network interfaces of the account that are attached nowhere.

use clap::{Arg, ArgMatches, Command};

use crate::config::Config;

use super::{Failure, OK, print, progress, runtime};

pub(super) fn command() -> Command {
    let format = Arg::new("format").long("format").value_name("FORMAT").default_value("table");
    let region = Arg::new("region").long("region").value_name("REGION").env("AWS_REGION");
    let vpc = Arg::new("vpc").long("vpc").value_name("VPC");
    Command::new("sweep")
        .about("List unattached EBS volumes grouped by likely owner, and network interfaces that pods left behind")
        .long_about(
            "List the account's volumes of one region that are attached nowhere, in three groups: ours (tagged as this \
             cluster's, and no PersistentVolume has them), likely another owner's, and of an unknown owner; what each \
             costs a month, about; and how much of each type the account has, beside the quota that counts it. \
             Then the network interfaces of the VPC CNI and the VPC resource controller that are attached nowhere in \
             the VPC: they keep their subnet and security groups from being deleted.\n\n\
             Needs --kubeconfig FILE or KUBECONFIG (to list PersistentVolumes; without it no volume is listed as ours, and interfaces \
             only with --vpc) and credentials of AWS with ec2:DescribeVolumes, ec2:DescribeInstances and \
             ec2:DescribeNetworkInterfaces (daemonset/iam/sweep.json): in the environment, of a profile with keys or a role, or the \
             machine's own (of SSO: eval \"$(aws configure export-credentials --format env)\"). Exit code: 0 listed, 3 \
             could not list, 64 wrong usage. It only reads, at most one page a second: \
             a person who knows what is on a volume decides whether it is deleted.",
        )
        .arg(format.value_parser(["table", "json"]).help("output format"))
        .arg(region.help("the region (default: that of the cluster's volumes)"))
        .arg(vpc.help("the VPC of the network interfaces (default: that of the cluster's instances)"))
}

pub(super) fn main(arguments: &ArgMatches, config: &Config) -> Result<u8, Failure> {
    // An empty variable is one that is not set.
    let region = arguments.get_one::<String>("region").filter(|region| !region.is_empty()).cloned();
    let vpc = arguments.get_one::<String>("vpc").cloned();
    let sweep = crate::agent::sweep::run(config, region, vpc);
    let report = runtime()?.block_on(progress::beside("listing volumes and network interfaces", None, sweep))?;
    match arguments.get_one::<String>("format").map(String::as_str) {
        Some("json") => print(&report.to_json()),
        _ => print(&report.to_table()),
    }
    Ok(OK)
}
