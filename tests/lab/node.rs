//! A real node: kubelet, containerd and the EBS driver's stand-in in the VM, joined to a control plane outside.

mod healthy;
mod proofs;
pub mod stories;

pub use healthy::sequences;
pub use proofs::{with_cgroupfs, with_systemd};

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::control::{ControlPlane, wait_for};
use crate::pieces::piece;
use crate::vm::{Disk, Options, Vm};

/// The node's size: the kubelet's disk, containerd's disk.
const DISKS: &[Disk] = &[Disk { size: "4G", made: &[] }, Disk { size: "4G", made: &[] }];

pub struct Node {
    pub vm: Vm,
    pub name: String,
}

impl Node {
    /// What a node asks of a VM on top of the usual.
    pub fn options(kernel: &'static str) -> Options {
        Options { memory_mib: 4096, disks: DISKS, ..Options::new(kernel) }
    }

    /// As EC2's images are today: systemd, control groups by its hands, a later kernel, multipath devices.
    pub fn options_with_systemd() -> Options {
        Options { systemd: true, multipath: true, ..Self::options("6.12") }
    }

    /// Boots a node that joins the control plane by this name, and waits until it is ready for pods.
    /// `images` are docker-archives, beside the busybox one.
    pub fn start(plane: &ControlPlane, name: &str, options: &Options, images: &[&str]) -> Result<Self> {
        let busybox = piece("busybox-image")?.join("busybox.tar");
        let csi = piece("csi")?.join("csi");
        let runtime = piece("container-runtime")?;
        let began = Instant::now();
        let mut vm = Vm::boot(options)?;
        let booted = began.elapsed();
        vm.put("/etc/kubernetes/kubelet.kubeconfig", &fs::read(plane.node_identity(name)?.guest)?)?;
        let programs = plane.programs().display();
        let (runtime, csi, busybox) = (runtime.display(), csi.display(), busybox.display());
        let images = images.join(" ");
        let mut node = Self { vm, name: name.to_owned() };
        node.sh(&format!("service_address {}", plane.address().port()))?;
        node.sh(&format!("node_start {name} {programs} {runtime} {csi} {busybox} {images}"))?;
        node.wait_until_ready(plane)?;
        println!("node {name}: booted after {booted:.0?}, ready after {:.0?}", began.elapsed());
        Ok(node)
    }

    /// Runs a command of bash on the node, with the functions of `guest/lib` and `guest/node`.
    pub fn sh(&mut self, command: &str) -> Result<String> {
        self.vm.sh(command)
    }

    /// Ready, and its CSI driver is known to the kubelet.
    fn wait_until_ready(&mut self, plane: &ControlPlane) -> Result<()> {
        let (node, csi_node) = (format!("node/{}", self.name), format!("csinode/{}", self.name));
        let ready = [
            vec!["wait", "--for=create", &node, "--timeout=5s"],
            vec!["wait", "--for=condition=Ready", &node, "--timeout=5s"],
            vec!["wait", "--for=jsonpath={.spec.drivers[0].name}=ebs.csi.aws.com", &csi_node, "--timeout=5s"],
        ];
        let mut done = 0;
        let outcome = wait_for(&format!("node {}", self.name), || {
            while let Some(next) = ready.get(done) {
                if plane.kubectl(next).is_err() {
                    break;
                }
                done += 1;
            }
            Ok(done == ready.len())
        });
        if outcome.is_err() {
            let logs = self.sh("node_logs")?;
            return outcome.context(logs);
        }
        outcome
    }
}

impl Vm {
    /// Writes a file inside.
    pub fn put(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let encoded = STANDARD.encode(content);
        self.sh(&format!(": put {path}\nmkdir -p $(dirname {path}) && base64 -d >{path} <<<{encoded}")).map(drop)
    }
}
