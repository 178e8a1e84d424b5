//! What `barnacle sweep` says of volumes and network interfaces that are attached nowhere: a table for people, or JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::detect::volumes::orphaned_volume::{sort, usd_a_month};
use crate::facts::{CSI_NAME_TAG, Ec2Interface, Ec2Volume, EniUse, InterfaceSweep, Unknown, VolumeId, VolumeSweep};
use crate::report::text;

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;

/// Of the prices: what they are, and what they are not.
const PRICES: &str = "costs are by the list of us-east-1 (size, provisioned IOPS and throughput), about: your region and contract differ";

/// The documented JSON form.
#[derive(Clone, Debug, Serialize)]
pub struct SweepReport {
    /// [`SCHEMA`]
    pub version: u32,
    /// When it was listed.
    pub at: Timestamp,
    /// The region, the only one that was listed.
    pub region: String,
    /// What this cluster is called in tags, where that is known.
    pub cluster: Option<String>,
    /// Tagged as this cluster's, and no PersistentVolume has them. Absent where that cannot be known.
    pub owned: Option<Vec<SweptVolume>>,
    /// Why not, then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owned_unknown: Option<String>,
    /// Of other clusters, or of another owner who tags them.
    pub likely_other_owner: Vec<SweptVolume>,
    /// Without a tag.
    pub unknown_owner: Vec<SweptVolume>,
    /// The VPCs of which interfaces are listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vpcs: Vec<String>,
    /// Interfaces of pods that were made more than an hour ago and are attached nowhere. Absent where they could not be listed.
    pub interfaces: Option<Vec<SweptInterface>>,
    /// The same of those of which EC2 does not say when they were made.
    pub interfaces_of_unknown_age: Option<Vec<SweptInterface>>,
    /// Why they could not be listed, then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces_unknown: Option<String>,
    /// Attached nowhere as well, and not listed: why, and how many.
    pub left_out: BTreeMap<&'static str, usize>,
    /// All volumes of the account in this region by type, which is what its quotas count.
    pub totals: Vec<Total>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// One volume.
#[derive(Clone, Debug, Serialize)]
pub struct SweptVolume {
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub volume_type: String,
    /// Its size.
    pub size_gib: u64,
    /// Its zone.
    pub zone: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What it costs a month, about.
    pub usd_a_month: Option<f64>,
    /// What its tags say.
    pub hint: String,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweptInterface {
    /// Its id.
    pub id: String,
    /// What it was made for.
    #[serde(rename = "use")]
    pub made_for: EniUse,
    /// Its VPC.
    pub vpc: String,
    /// Its subnet, which cannot be deleted before it.
    pub subnet: String,
    /// Its zone.
    pub zone: String,
    /// Its security groups, which cannot be deleted before it.
    pub security_groups: Vec<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// The clusters that its tags name.
    pub clusters: Vec<String>,
    /// What made it, by its tag.
    pub made_by: Option<String>,
    /// The instance that it was made for, by its tag.
    pub instance: Option<String>,
}

/// What makes interfaces for pods attaches them within seconds, and deletes what is left within an hour.
const YOUNG: SignedDuration = SignedDuration::from_hours(1);
const INTERFACE_TOO_YOUNG: &str = "interface created within the last hour";
const INTERFACE_MANAGED: &str = "interface that an AWS service manages";

/// Volumes of one type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Total {
    /// The type.
    #[serde(rename = "type")]
    pub volume_type: String,
    /// How many.
    pub volumes: u64,
    /// How large, together.
    pub tib: f64,
    /// The quota that counts them, by its name in Service Quotas.
    pub quota: String,
    /// Its code there.
    pub quota_code: Option<&'static str>,
    /// What an account has of it that never asked for more, in TiB.
    pub default_quota_tib: Option<u32>,
}

impl SweepReport {
    /// Sorts what was found. `sizes` are number and GiB of all volumes by type, those that are attached among them.
    #[must_use]
    pub fn of(
        sweep: &VolumeSweep,
        sizes: &BTreeMap<String, (u64, u64)>,
        mut notes: Vec<String>,
        at: Timestamp,
    ) -> Self {
        let sorted = sort(sweep, at);
        let reported = |volumes: &[(&VolumeId, &Ec2Volume)]| -> Vec<_> {
            volumes.iter().map(|(id, volume)| SweptVolume::of(id, volume)).collect()
        };
        if let Some(incomplete) = sweep.volumes.incomplete() {
            notes.push(format!("not all volumes were seen: {incomplete}"));
        }
        notes.push(PRICES.to_owned());
        Self {
            version: SCHEMA,
            at,
            region: sweep.region.clone(),
            cluster: sweep.cluster.clone(),
            owned: sweep.nameless.is_none().then(|| reported(&sorted.owned)),
            owned_unknown: sweep.nameless.as_ref().map(|why| why.why.clone()),
            likely_other_owner: reported(&sorted.other_owner),
            unknown_owner: reported(&sorted.unknown),
            vpcs: Vec::new(),
            interfaces: None,
            interfaces_of_unknown_age: None,
            interfaces_unknown: None,
            left_out: BTreeMap::from([
                ("a PersistentVolume of this cluster has it", sorted.claimed),
                ("of etcd or the control plane", sorted.control_plane),
                ("created within the last hour, or at an unknown time", sorted.young),
            ]),
            totals: sizes.iter().map(|(of, (volumes, gib))| Total::of(of, *volumes, *gib)).collect(),
            notes,
        }
    }

    /// The same with what is left behind of network interfaces, or why that is not known.
    #[must_use]
    pub fn with_interfaces(mut self, swept: &Result<InterfaceSweep, Unknown>) -> Self {
        let swept = match swept {
            Ok(swept) => swept,
            Err(why) => return Self { interfaces_unknown: Some(why.why.clone()), ..self },
        };
        if let Some(incomplete) = swept.interfaces.incomplete() {
            self.notes.push(format!("not all network interfaces were seen: {incomplete}"));
        }
        self.vpcs.clone_from(&swept.vpcs);
        let (mut old, mut undated, mut young, mut managed) = (Vec::new(), Vec::new(), 0, 0);
        for (id, interface) in swept.interfaces.iter().filter(|(_, interface)| interface.is_available()) {
            let Some(made_for) = interface.of_pods() else { continue };
            match interface.created() {
                _ if interface.managed_by.is_some() => managed += 1,
                Some(created) if self.at.duration_since(created) < YOUNG => young += 1,
                Some(_) => old.push(SweptInterface::of(id, made_for, interface)),
                None => undated.push(SweptInterface::of(id, made_for, interface)),
            }
        }
        self.left_out.extend([(INTERFACE_TOO_YOUNG, young), (INTERFACE_MANAGED, managed)]);
        (self.interfaces, self.interfaces_of_unknown_age) = (Some(old), Some(undated));
        self
    }

    /// As JSON, with a line break at the end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.map_or_else(|error| format!("{{\"error\": {:?}}}\n", error.to_string()), |text| text + "\n")
    }

    /// As a table.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut out = format!("Volumes in {} that are attached nowhere, {}\n", self.region, text::time(self.at));
        let whose = self.cluster.as_deref().map_or(String::new(), |name| format!(" ({name})"));
        let owned = self.owned.as_deref().ok_or(self.owned_unknown.as_deref().unwrap_or_default());
        group(&mut out, &format!("Ours{whose}: no PersistentVolume of this cluster has them"), owned);
        group(
            &mut out,
            "Likely another owner's: check the other clusters, and which tool sets such tags",
            Ok(&self.likely_other_owner),
        );
        group(&mut out, "Unknown owner: no tag names an owner", Ok(&self.unknown_owner));
        self.table_of_interfaces(&mut out);
        let left_out: Vec<_> = self.left_out.iter().filter(|(_, count)| **count > 0).collect();
        if !left_out.is_empty() {
            out.push_str("\nLeft out\n");
        }
        for (why, count) in left_out {
            let _ = writeln!(out, "  {count:>5}  {why}");
        }
        if !self.totals.is_empty() {
            out.push_str("\nVolumes of the account in this region (available or in use), beside the quota that counts them (Service Quotas, EBS), with\nits default: aws service-quotas get-service-quota --service-code ebs --quota-code CODE prints yours\n");
        }
        for total in &self.totals {
            let share = total.share();
            let _ = writeln!(out, "  {:<8}  {:>8}  {:>9.2} TiB  {share}", total.volume_type, total.volumes, total.tib);
        }
        out.push('\n');
        for note in &self.notes {
            let _ = writeln!(out, "{}", text::clean(note));
        }
        out
    }
}

impl SweepReport {
    fn table_of_interfaces(&self, out: &mut String) {
        let vpcs = if self.vpcs.is_empty() { String::new() } else { format!(" in {}", self.vpcs.join(", ")) };
        let title = format!(
            "Network interfaces of pods{vpcs} that are attached nowhere: they block their subnets and security groups"
        );
        let _ = writeln!(out, "\n{}", text::clean(&title));
        if let Some(why) = &self.interfaces_unknown {
            let _ = writeln!(out, "  ? cannot be evaluated: {}", text::clean(why));
        }
        let undated = "of unknown age: EC2 does not say it, and the VPC resource controller removes what is left within an hour, so list again then";
        for (title, interfaces) in
            [("made more than an hour ago", &self.interfaces), (undated, &self.interfaces_of_unknown_age)]
        {
            let Some(interfaces) = interfaces else { continue };
            let none = if interfaces.is_empty() { ": none" } else { "" };
            let _ = writeln!(out, "  {title}{none}");
            for interface in interfaces {
                let _ = writeln!(out, "    {}", text::clean(&interface.line()));
            }
        }
    }
}

impl SweptInterface {
    fn of(id: &str, made_for: EniUse, interface: &Ec2Interface) -> Self {
        let mut clusters: Vec<String> = interface.clusters().map(str::to_owned).collect();
        clusters.sort_unstable();
        clusters.dedup();
        Self {
            id: id.to_owned(),
            made_for,
            vpc: interface.vpc.clone(),
            subnet: interface.subnet.clone(),
            zone: interface.zone.clone(),
            security_groups: interface.security_groups.clone(),
            created: interface.created(),
            clusters,
            made_by: interface.made_by().map(str::to_owned),
            instance: interface.instance().map(str::to_owned),
        }
    }

    fn line(&self) -> String {
        let Self { id, made_for, subnet, security_groups, created, clusters, made_by, instance, .. } = self;
        let created = created.map_or("?".to_owned(), |at| at.strftime("%Y-%m-%d").to_string());
        let mut hints: Vec<String> = clusters.iter().map(|name| format!("cluster {name}")).collect();
        hints.extend(made_by.as_ref().map(|by| format!("of {by}")));
        hints.extend(instance.as_ref().map(|instance| format!("for {instance}")));
        let (groups, hints) = (security_groups.join(","), hints.join(", "));
        format!("{id:<21}  {:<9}  {subnet:<24}  {groups}  made {created}  {hints}", made_for.name())
    }
}

fn group(out: &mut String, title: &str, volumes: Result<&[SweptVolume], &str>) {
    let _ = writeln!(out, "\n{}", text::clean(title));
    let volumes = match volumes {
        Ok(volumes) => volumes,
        Err(why) => {
            let _ = writeln!(out, "  ? cannot be evaluated: {}", text::clean(why));
            return;
        }
    };
    let cost: f64 = volumes.iter().filter_map(|volume| volume.usd_a_month).sum();
    let gib: u64 = volumes.iter().map(|volume| volume.size_gib).sum();
    if volumes.is_empty() {
        out.push_str("  none\n");
        return;
    }
    for volume in volumes {
        let cost = volume.usd_a_month.map_or("?".to_owned(), |usd| format!("{usd:.2}"));
        let created = volume.created.map_or("?".to_owned(), |at| at.strftime("%Y-%m-%d").to_string());
        let _ = writeln!(
            out,
            "  {:<21}  {:>6} GiB {:<8}  {:>9} USD/month  made {created}  {}",
            volume.id,
            volume.size_gib,
            text::clean(&volume.volume_type),
            cost,
            text::clean(&volume.hint)
        );
    }
    let _ =
        writeln!(out, "  together {}, {gib} GiB, about {cost:.2} USD a month", text::counted(volumes.len(), "volume"));
}

impl SweptVolume {
    fn of(id: &VolumeId, volume: &Ec2Volume) -> Self {
        Self {
            id: id.as_str().to_owned(),
            volume_type: volume.volume_type.clone(),
            size_gib: volume.size_gib,
            zone: volume.zone.clone(),
            created: volume.created,
            usd_a_month: usd_a_month(volume).map(|usd| (usd * 100.0).round() / 100.0),
            hint: hint(volume),
        }
    }
}

/// What an operator would look for: the claim, the PersistentVolume, the cluster, the name.
fn hint(volume: &Ec2Volume) -> String {
    let tag = |name: &str| volume.tags.get(name);
    let mut hints = Vec::new();
    if let (Some(namespace), Some(claim)) =
        (tag("kubernetes.io/created-for/pvc/namespace"), tag("kubernetes.io/created-for/pvc/name"))
    {
        hints.push(format!("claim {namespace}/{claim}"));
    }
    hints.extend(tag(CSI_NAME_TAG).map(|name| format!("made for PersistentVolume {name}")));
    let mut clusters: Vec<&str> = volume.clusters().collect();
    clusters.sort_unstable();
    clusters.dedup();
    hints.extend(clusters.iter().map(|name| format!("cluster {name}")));
    hints.extend(tag("Name").map(|name| format!("Name={name}")));
    if volume.other_tags > 0 {
        hints.push(format!("{} of other tags", volume.other_tags));
    }
    hints.join(", ")
}

impl Total {
    fn of(of: &str, volumes: u64, gib: u64) -> Self {
        // Service Quotas' own list of EBS, whose values an account may have raised.
        let quota = match of {
            "gp2" => Some(("General Purpose SSD", "L-D18FCD1D", 50)),
            "gp3" => Some(("General Purpose SSD", "L-7A658B76", 50)),
            "io1" => Some(("Provisioned IOPS SSD", "L-FD252861", 50)),
            "io2" => Some(("Provisioned IOPS SSD", "L-09BD8365", 20)),
            "sc1" => Some(("Cold HDD", "L-17AF77E8", 50)),
            "st1" => Some(("Throughput Optimized HDD", "L-82ACEF56", 50)),
            "standard" => Some(("Magnetic", "L-9CF3C2EB", 50)),
            _ => None,
        };
        Self {
            volume_type: of.to_owned(),
            volumes,
            tib: (gib as f64 / 1024.0 * 100.0).round() / 100.0,
            quota: quota.map_or_else(
                || "its name is not known here".to_owned(),
                |(name, ..)| format!("Storage for {name} ({of}) volumes, in TiB"),
            ),
            quota_code: quota.map(|(_, code, _)| code),
            default_quota_tib: quota.map(|(.., tib)| tib),
        }
    }

    /// How near it is to its quota, as far as that is known without asking for it.
    fn share(&self) -> String {
        let share = |tib: u32| format!("{:.0} % of {tib} TiB", (100.0 * self.tib / f64::from(tib)).ceil());
        match (self.default_quota_tib.map(share), self.quota_code) {
            (Some(share), Some(code)) => format!("{share}  {code}  {}", self.quota),
            _ => self.quota.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Ec2VolumeState, Inventory};

    fn report() -> SweepReport {
        let volume = |tags: &[(&str, &str)], size_gib| Ec2Volume {
            state: Ec2VolumeState::Available,
            volume_type: "gp3".into(),
            size_gib,
            zone: "eu-west-1a".into(),
            created: Some("2026-01-02T03:04:05Z".parse().unwrap()),
            tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Ec2Volume::default()
        };
        let id = |n: u32| VolumeId::from_serial(&format!("vol-{n:08x}")).unwrap();
        let claim = [
            ("kubernetes.io/cluster/prod", "owned"),
            ("kubernetes.io/created-for/pvc/namespace", "shop"),
            ("kubernetes.io/created-for/pvc/name", "data-db-0"),
        ];
        let sweep = VolumeSweep {
            region: "eu-west-1".into(),
            cluster: Some("prod".into()),
            nameless: None,
            claimed: Some([].into()),
            volumes: Inventory::whole([
                (id(1), volume(&claim, 100)),
                (id(2), volume(&[("CSIVolumeName", "pvc-2")], 20)),
                (id(3), volume(&[("Name", "x\u{1b}[31m")], 1)),
                (id(4), volume(&[("k8s.io/etcd/main", "a")], 20)),
            ]),
        };
        let sizes = BTreeMap::from([("gp3".to_owned(), (4, 141)), ("io2".to_owned(), (1, 2048))]);
        SweepReport::of(&sweep, &sizes, Vec::new(), "2026-11-21T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_table_has_three_groups_what_they_cost_and_no_command() {
        let table = report().to_table();
        for line in [
            "Ours (prod): no PersistentVolume of this cluster has them",
            "  vol-00000001              100 GiB gp3            8.00 USD/month  made 2026-01-02  claim shop/data-db-0, cluster prod",
            "  together 1 volume, 100 GiB, about 8.00 USD a month",
            "Likely another owner's: check the other clusters, and which tool sets such tags",
            "made for PersistentVolume pvc-2",
            "Unknown owner: no tag names an owner",
            "      1  of etcd or the control plane",
            "  io2              1       2.00 TiB  10 % of 20 TiB  L-09BD8365  Storage for Provisioned IOPS SSD (io2) volumes, in TiB",
            "by the list of us-east-1",
        ] {
            assert!(table.contains(line), "{line}\n{table}");
        }
        assert!(!table.contains('\u{1b}'), "a tag does not write to the terminal");
        assert!(!table.to_lowercase().contains("delete"), "{table}");
    }

    #[test]
    fn interfaces_that_are_left_behind_have_their_owner_and_what_they_block() {
        let interface = |description: &str, tags: &[(&str, &str)]| Ec2Interface {
            status: "available".into(),
            description: description.into(),
            subnet: "subnet-0a".into(),
            security_groups: vec!["sg-0a".into(), "sg-0b".into()],
            tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Ec2Interface::default()
        };
        let created =
            |at| [("node.k8s.amazonaws.com/createdAt", at), ("cluster.k8s.amazonaws.com/name", "x\u{1b}[31m")];
        let branch = interface("aws-k8s-branch-eni", &[("kubernetes.io/cluster/prod", "owned")]);
        let of_service = Ec2Interface { managed_by: Some("eks.amazonaws.com".into()), ..branch.clone() };
        let in_use = Ec2Interface { status: "in-use".into(), ..branch.clone() };
        let interfaces = [
            ("eni-00000001", branch),
            ("eni-00000002", interface("aws-K8S-i-0", &created("2026-11-21T10:00:00Z"))),
            ("eni-00000003", interface("aws-K8S-i-0", &created("2026-11-21T11:30:00Z"))),
            ("eni-00000004", interface("ELB app/web", &[])),
            ("eni-00000005", of_service),
            ("eni-00000006", in_use),
        ];
        let interfaces = Inventory::whole(interfaces.map(|(id, interface)| (id.to_owned(), interface)));
        let swept = Ok(InterfaceSweep { vpcs: vec!["vpc-0a".into()], interfaces });
        let with = report().with_interfaces(&swept);
        let table = with.to_table();
        for line in [
            "Network interfaces of pods in vpc-0a that are attached nowhere: they block their subnets and security groups",
            "  made more than an hour ago\n    eni-00000002           secondary  subnet-0a                 sg-0a,sg-0b  made 2026-11-21  cluster x",
            "list again then\n    eni-00000001           branch     subnet-0a                 sg-0a,sg-0b  made ?  cluster prod",
            "      1  interface created within the last hour",
            "      1  interface that an AWS service manages",
        ] {
            assert!(table.contains(line), "{line}\n{table}");
        }
        assert!(
            !table.contains('\u{1b}') && !["04", "05", "06"].iter().any(|n| table.contains(&format!("eni-000000{n}"))),
            "{table}"
        );
        let unknown = report().with_interfaces(&Err(Unknown::new(crate::facts::Cause::Denied, "no right")));
        assert_eq!((&unknown.interfaces, unknown.interfaces_unknown.as_deref()), (&None, Some("no right")));
        assert!(unknown.to_table().contains("  ? cannot be evaluated: no right"));
    }

    #[test]
    fn the_json_says_the_same() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["owned"][0]["id"], "vol-00000001");
        assert_eq!(json["owned"][0]["usd_a_month"], 8.0);
        assert_eq!(json["likely_other_owner"][0]["type"], "gp3");
        assert_eq!(json["unknown_owner"][0]["size_gib"], 1);
        assert_eq!(json["left_out"]["of etcd or the control plane"], 1);
        assert_eq!(json["totals"][1]["tib"], 2.0);
    }
}
