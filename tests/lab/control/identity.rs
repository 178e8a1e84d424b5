//! Who may talk to the control plane: its certificate authority, and a kubeconfig for each identity.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// The machine's loopback as a VM of the lab sees it.
pub const FROM_GUEST: &str = "10.0.2.2";

/// The address of the Service `kubernetes`, by which a pod finds the API server.
const SERVICE: &str = "10.96.0.1";

const CURVE: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// A certificate authority and what it signed, each as `NAME.crt` and `NAME.key` in one directory.
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path) -> Result<Self> {
        let authority = Self { dir: dir.to_owned() };
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let usage = "keyUsage=critical,keyCertSign,digitalSignature";
        authority.certificate("ca", &["-subj", "/CN=barnacle-lab", "-addext", usage])?;
        // The form that the API server also reads the public key from.
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &authority.file("sa.key")])?;
        let names = format!(
            "subjectAltName=IP:127.0.0.1,IP:{FROM_GUEST},IP:{SERVICE},DNS:localhost,DNS:kubernetes.default.svc"
        );
        authority.signed(
            "api",
            "/CN=kube-apiserver",
            &["-addext", "extendedKeyUsage=serverAuth", "-addext", &names],
        )?;
        Ok(authority)
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A client certificate: `group` and `user` are what the API server reads from it.
    pub fn client(&self, name: &str, user: &str, group: &str) -> Result<()> {
        self.signed(name, &format!("/O={group}/CN={user}"), &["-addext", "extendedKeyUsage=clientAuth"])
    }

    fn signed(&self, name: &str, subject: &str, more: &[&str]) -> Result<()> {
        let (ca, key) = (self.file("ca.crt"), self.file("ca.key"));
        let mut args =
            vec!["-CA", &ca, "-CAkey", &key, "-subj", subject, "-addext", "basicConstraints=critical,CA:FALSE"];
        args.extend(more);
        self.certificate(name, &args)
    }

    fn certificate(&self, name: &str, more: &[&str]) -> Result<()> {
        let (crt, key) = (self.file(&format!("{name}.crt")), self.file(&format!("{name}.key")));
        let mut args = vec!["req", "-x509", "-days", "30", "-out", &crt, "-keyout", &key];
        args.extend(CURVE);
        args.extend(more);
        openssl(&args)
    }

    /// Writes a kubeconfig that stands alone: it may be carried into a VM. `user` is the `user` entry of kubectl's format.
    pub fn kubeconfig(&self, path: &Path, server: &str, user: &serde_json::Value) -> Result<()> {
        let ca = STANDARD.encode(fs::read(self.file("ca.crt"))?);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [{"name": "lab", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        });
        fs::write(path, config.to_string()).with_context(|| path.display().to_string())
    }

    /// The `user` entry for a certificate that `client` made.
    pub fn user(&self, name: &str) -> Result<serde_json::Value> {
        let data = |end: &str| fs::read(self.file(&format!("{name}.{end}"))).map(|bytes| STANDARD.encode(bytes));
        Ok(json!({"client-certificate-data": data("crt")?, "client-key-data": data("key")?}))
    }
}

fn openssl(args: &[&str]) -> Result<()> {
    let made =
        Command::new("openssl").args(args).output().context("openssl (Debian: openssl) signs the lab's identities")?;
    ensure!(made.status.success(), "openssl {}: {}", args.join(" "), String::from_utf8_lossy(&made.stderr));
    Ok(())
}
