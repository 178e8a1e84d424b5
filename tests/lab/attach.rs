//! What the EBS driver's controller says to Kubernetes, without a cloud behind it: volumes, and that they are attached.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::control::{ControlPlane, wait_for};

pub const DRIVER: &str = "ebs.csi.aws.com";
const FINALIZER: &str = "external-attacher/ebs-csi-aws-com";

impl ControlPlane {
    /// The driver as its installation announces it.
    pub fn install_driver(&self) -> Result<()> {
        let driver = json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIDriver",
            "metadata": {"name": DRIVER},
            "spec": {"attachRequired": true, "podInfoOnMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType"},
        });
        self.apply(&driver.to_string()).map(drop)
    }

    /// A volume by its EBS id (`vol-…`), with a claim of the same name in `default` that is bound to it.
    pub fn create_volume(&self, name: &str, volume: &str, mode: VolumeMode) -> Result<()> {
        let (mode, fs_type) = match mode {
            VolumeMode::Filesystem(fs_type) => ("Filesystem", Some(fs_type)),
            VolumeMode::Block => ("Block", None),
        };
        let spec = json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeMode": mode,
        });
        let mut volume_spec = spec.clone();
        volume_spec["capacity"] = json!({"storage": "1Gi"});
        volume_spec["persistentVolumeReclaimPolicy"] = json!("Retain");
        volume_spec["claimRef"] = json!({"namespace": "default", "name": name});
        volume_spec["csi"] = json!({"driver": DRIVER, "volumeHandle": volume, "fsType": fs_type});
        let mut claim_spec = spec;
        claim_spec["resources"] = json!({"requests": {"storage": "1Gi"}});
        claim_spec["volumeName"] = json!(name);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume_spec},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"}, "spec": claim_spec},
        ]});
        self.apply(&list.to_string()).map(drop)
    }

    /// The VolumeAttachment of a volume on a node, if there is one. Kubernetes makes and deletes it.
    pub fn attachment(&self, volume: &str, node: &str) -> Result<Option<Value>> {
        let all = self.get(&["volumeattachments"])?;
        let items = all["items"].as_array().context("kubectl get volumeattachments: a list expected")?;
        let ours = |item: &&Value| {
            item["spec"]["source"]["persistentVolumeName"] == volume && item["spec"]["nodeName"] == node
        };
        Ok(items.iter().find(ours).cloned())
    }

    /// Waits until Kubernetes wants a volume on a node, and says that it is attached there.
    pub fn attach(&self, volume: &str, node: &str, device: &str) -> Result<()> {
        let name = self.wait_for_attachment(volume, node, "create")?;
        self.patch_attachment(&name, &json!({"metadata": {"finalizers": [FINALIZER]}}), &[])?;
        let status = json!({"status": {"attached": true, "attachmentMetadata": {"devicePath": device}}});
        self.patch_attachment(&name, &status, &["--subresource=status"])
    }

    /// Waits until Kubernetes no longer wants a volume on a node, and says that it is detached.
    pub fn detach(&self, volume: &str, node: &str) -> Result<()> {
        let name = self.wait_for_attachment(volume, node, "jsonpath={.metadata.deletionTimestamp}")?;
        self.patch_attachment(&name, &json!({"status": {"attached": false}}), &["--subresource=status"])?;
        self.patch_attachment(&name, &json!({"metadata": {"finalizers": null}}), &[])
    }

    /// kubectl waits by itself: asked again and again, it would keep a processor busy. So the name must be known, which
    /// Kubernetes makes of what is attached.
    fn wait_for_attachment(&self, volume: &str, node: &str, until: &str) -> Result<String> {
        let id = self.kubectl(&["get", "persistentvolume", volume, "-o", "jsonpath={.spec.csi.volumeHandle}"])?;
        let name = barnacle::facts::attachment_name(&id, DRIVER, node);
        let (path, until) = (format!("volumeattachment/{name}"), format!("--for={until}"));
        wait_for(&format!("the VolumeAttachment of {volume} on {node}, {until}"), || {
            Ok(self.kubectl(&["wait", &until, &path, "--timeout=5s"]).is_ok())
        })?;
        Ok(name)
    }

    fn patch_attachment(&self, name: &str, patch: &Value, more: &[&str]) -> Result<()> {
        let patch = patch.to_string();
        let args = [&["patch", "volumeattachment", name, "--type=merge", "-p", &patch], more].concat();
        self.kubectl(&args).map(drop)
    }
}

#[derive(Clone, Copy)]
pub enum VolumeMode {
    /// With this filesystem.
    Filesystem(&'static str),
    Block,
}
