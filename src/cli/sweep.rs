//! `barnacle sweep`: volumes of the account that are attached nowhere.

use clap::{Arg, ArgMatches, Command};

use crate::config::Config;

use super::{Failure, OK, print, progress, runtime};

pub(super) fn command() -> Command {
    let format = Arg::new("format").long("format").value_name("FORMAT").default_value("table");
    let region = Arg::new("region").long("region").value_name("REGION").env("AWS_REGION");
    Command::new("sweep")
        .about("List unattached EBS volumes grouped by likely owner")
        .long_about(
            "List the account's volumes of one region that are attached nowhere, in three groups: ours (tagged as this \
             cluster's, and no PersistentVolume has them), likely another owner's, and of an unknown owner; what each \
             costs a month, about; and how much of each type the account has, beside the quota that counts it.\n\n\
             Needs --kubeconfig FILE or KUBECONFIG (to list PersistentVolumes; without it no volume is listed as ours) and \
             credentials of AWS with ec2:DescribeVolumes: in the environment, of a profile with keys or a role, or the \
             machine's own (of SSO: eval \"$(aws configure export-credentials --format env)\"). Exit code: 0 listed, 3 \
             could not list, 64 wrong usage. It only reads, at most one page a second: \
             a person who knows what is on a volume decides whether it is deleted.",
        )
        .arg(format.value_parser(["table", "json"]).help("output format"))
        .arg(region.help("the region (default: that of the cluster's volumes)"))
}

pub(super) fn main(arguments: &ArgMatches, config: &Config) -> Result<u8, Failure> {
    // An empty variable is one that is not set.
    let region = arguments.get_one::<String>("region").filter(|region| !region.is_empty()).cloned();
    let sweep = crate::agent::sweep::run(config, region);
    let report = runtime()?.block_on(progress::beside("listing volumes", None, sweep))?;
    match arguments.get_one::<String>("format").map(String::as_str) {
        Some("json") => print(&report.to_json()),
        _ => print(&report.to_table()),
    }
    Ok(OK)
}
