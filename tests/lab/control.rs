//! A control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler on the loopback, in seconds.

mod identity;
pub mod process;
mod proofs;

pub use proofs::proofs;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::pieces::{need, piece};
use crate::scratch::{Scratch, owned};
use identity::{Authority, FROM_GUEST};
use process::Process;
pub use process::free_ports;

/// How long a step may take on a machine that has other things to do, or under emulation. Most take seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// All requests, without their bodies, once each.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#;

/// A group that nothing is granted to: what its members may do hangs on their names.
const NO_GROUP: &str = "barnacle-lab";

pub struct ControlPlane {
    // In the order in which they end.
    scheduler: Process,
    controllers: Process,
    api: Process,
    etcd: Process,
    programs: PathBuf,
    authority: Authority,
    admin: PathBuf,
    port: u16,
    etcd_port: u16,
    scratch: Scratch,
}

impl ControlPlane {
    /// To be called on the main thread: see [`owned`].
    pub fn start() -> Result<Self> {
        need("openssl", "openssl")?;
        let programs = piece("control-plane")?;
        let mut tries = 1;
        loop {
            match Self::try_start(&programs) {
                // Another program took a port between our look and its use.
                Err(why) if tries < 3 && format!("{why:#}").contains("address already in use") => tries += 1,
                other => return other,
            }
        }
    }

    fn try_start(programs: &Path) -> Result<Self> {
        let began = Instant::now();
        let scratch = Scratch::new("control")?;
        let authority = Authority::new(&scratch.join("keys"))?;
        fs::write(scratch.join("audit-policy.json"), AUDIT_POLICY)?;
        let [port, etcd_port, peer_port] = free_ports()?;
        let mut etcd = start_etcd(programs, &scratch, etcd_port, peer_port)?;
        let mut api = start_api(programs, &scratch, &authority, port, etcd_port)?;
        let admin = write_identity(&authority, &scratch, "admin", "admin", "system:masters", port)?.here;
        wait_for("the API server", || {
            etcd.alive()?;
            api.alive()?;
            Ok(answers(programs, &scratch, &admin, port))
        })?;
        let ready = began.elapsed();
        let controllers = start_controllers(programs, &scratch, &authority, port)?;
        let scheduler = start_scheduler(programs, &scratch, &authority, port)?;
        let mut plane = Self {
            scheduler,
            controllers,
            api,
            etcd,
            programs: programs.to_owned(),
            authority,
            admin,
            port,
            etcd_port,
            scratch,
        };
        plane.wait_for_accounts()?;
        println!("control plane: API ready after {ready:.1?}, pods are taken after {:.1?}", began.elapsed());
        Ok(plane)
    }

    /// Pods are refused in a namespace without its default service account, which a controller makes.
    fn wait_for_accounts(&mut self) -> Result<()> {
        wait_for("the default service account", || {
            for process in [&mut self.etcd, &mut self.controllers, &mut self.scheduler] {
                process.alive()?;
            }
            // It waits by itself: no kubectl again and again.
            Ok(self.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=5s"]).is_ok())
        })
    }

    /// Runs kubectl as the administrator and returns what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(&self.admin, args)
    }

    /// Runs kubectl as the owner of a kubeconfig.
    pub fn kubectl_with(&self, kubeconfig: &Path, args: &[&str]) -> Result<String> {
        run_kubectl(&self.programs, &self.scratch, kubeconfig, args, "")
    }

    /// Runs kubectl with a bearer token and nothing else.
    pub fn kubectl_as(&self, token: &str, args: &[&str]) -> Result<String> {
        let config = self.scratch.join("token.kubeconfig");
        self.authority.kubeconfig(&config, &self.url(), &json!({"token": token}))?;
        self.kubectl_with(&config, args)
    }

    /// A kubeconfig for a `user` entry of kubectl's format, with a namespace to be in.
    pub fn kubeconfig_of(&self, name: &str, namespace: &str, user: &Value) -> Result<PathBuf> {
        let path = self.scratch.join(&format!("{name}.kubeconfig"));
        self.authority.kubeconfig(&path, &self.url(), user)?;
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        config["contexts"][0]["context"]["namespace"] = json!(namespace);
        fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// What kubectl says in JSON.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let said = self.kubectl(&[&["get", "-o", "json"], args].concat())?;
        serde_json::from_str(&said).with_context(|| format!("kubectl get {}: JSON expected", args.join(" ")))
    }

    /// Applies manifests (YAML or JSON) as the administrator.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        run_kubectl(&self.programs, &self.scratch, &self.admin, &["apply", "-f", "-"], manifests)
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// The kubelet of a node by this name, which need not exist yet.
    pub fn node_identity(&self, node: &str) -> Result<Identity> {
        let user = format!("system:node:{node}");
        write_identity(&self.authority, &self.scratch, &format!("node-{node}"), &user, "system:nodes", self.port)
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Where etcd takes requests, without TLS.
    pub fn etcd(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.etcd_port))
    }

    /// The API's address for a VM of the lab.
    pub fn guest_url(&self) -> String {
        format!("https://{FROM_GUEST}:{}", self.port)
    }

    /// The authority that signed the API server's certificate and all clients', as PEM.
    pub fn ca(&self) -> PathBuf {
        PathBuf::from(self.authority.file("ca.crt"))
    }

    /// Logs, kubeconfigs, keys and the audit log. Goes with the control plane.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The directory of kubectl, kubelet and the others.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// All requests that have been answered, oldest first, as the API server's audit log has them.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let path = self.scratch.join("audit.log");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // What follows the last newline is being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| format!("audit.log: {line}"))).collect()
    }

    /// From now on only the caller changes objects.
    pub fn hold_controllers(&self) -> Result<()> {
        self.controllers.signal(Signal::SIGSTOP)?;
        self.scheduler.signal(Signal::SIGSTOP)
    }

    /// The API server takes connections and answers nothing, until [`Self::resume`].
    pub fn pause(&self) -> Result<()> {
        self.api.signal(Signal::SIGSTOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.api.signal(Signal::SIGCONT)
    }

    /// Kills the API server and starts another one on the same port and data.
    pub fn restart_api(&mut self) -> Result<()> {
        let began = Instant::now();
        self.stop_api()?;
        self.start_api()?;
        println!("control plane: API restarted in {:.1?}", began.elapsed());
        Ok(())
    }

    /// No server listens on the API's port, until [`Self::start_api`].
    pub fn stop_api(&mut self) -> Result<()> {
        self.api.stop()
    }

    pub fn start_api(&mut self) -> Result<()> {
        self.api = start_api(&self.programs, &self.scratch, &self.authority, self.port, self.etcd_port)?;
        wait_for("the API server", || {
            self.api.alive()?;
            Ok(answers(&self.programs, &self.scratch, &self.admin, self.port))
        })
    }
}

/// Two kubeconfigs of one identity: for this machine, and for a VM of the lab.
pub struct Identity {
    pub here: PathBuf,
    pub guest: PathBuf,
}

fn write_identity(
    authority: &Authority,
    scratch: &Scratch,
    name: &str,
    user: &str,
    group: &str,
    port: u16,
) -> Result<Identity> {
    authority.client(name, user, group)?;
    let entry = authority.user(name)?;
    let identity = Identity {
        here: scratch.join(&format!("{name}.kubeconfig")),
        guest: scratch.join(&format!("{name}.guest.kubeconfig")),
    };
    authority.kubeconfig(&identity.here, &format!("https://127.0.0.1:{port}"), &entry)?;
    authority.kubeconfig(&identity.guest, &format!("https://{FROM_GUEST}:{port}"), &entry)?;
    Ok(identity)
}

fn start_etcd(programs: &Path, scratch: &Scratch, port: u16, peer_port: u16) -> Result<Process> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = owned_program(programs, "etcd");
    command
        .arg("--data-dir")
        .arg(scratch.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"]);
    Process::start("etcd", command, scratch.join("etcd.log"))
}

fn start_api(programs: &Path, scratch: &Scratch, authority: &Authority, port: u16, etcd_port: u16) -> Result<Process> {
    let mut command = owned_program(programs, "kube-apiserver");
    command
        .args(["--bind-address=127.0.0.1", "--service-cluster-ip-range=10.96.0.0/16"])
        .args([format!("--secure-port={port}"), format!("--etcd-servers=http://127.0.0.1:{etcd_port}")])
        // The address of the Service `kubernetes`; a loopback address is refused.
        .arg(format!("--advertise-address={FROM_GUEST}"))
        .args([
            format!("--tls-cert-file={}", authority.file("api.crt")),
            format!("--tls-private-key-file={}", authority.file("api.key")),
        ])
        .arg(format!("--client-ca-file={}", authority.file("ca.crt")))
        .args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"])
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .args(
            ["signing-key-file", "key-file"].map(|key| format!("--service-account-{key}={}", authority.file("sa.key"))),
        )
        .arg(format!("--audit-policy-file={}", scratch.join("audit-policy.json").display()))
        // In MB; at its default of 100 the file would be put aside.
        .args([
            format!("--audit-log-path={}", scratch.join("audit.log").display()),
            "--audit-log-maxsize=100000".to_owned(),
        ])
        .arg("--allow-privileged=true");
    Process::start("kube-apiserver", command, scratch.join("kube-apiserver.log"))
}

fn start_controllers(programs: &Path, scratch: &Scratch, authority: &Authority, port: u16) -> Result<Process> {
    let name = "kube-controller-manager";
    let identity = write_identity(authority, scratch, name, "system:kube-controller-manager", NO_GROUP, port)?;
    let mut command = owned_program(programs, name);
    command
        .args(["--leader-elect=false", "--secure-port=0", "--use-service-account-credentials=true"])
        // At its default of 20 a second its start takes twice as long.
        .args(["--kube-api-qps=500", "--kube-api-burst=500"])
        .arg(format!("--kubeconfig={}", identity.here.display()))
        .arg(format!("--service-account-private-key-file={}", authority.file("sa.key")))
        .arg(format!("--root-ca-file={}", authority.file("ca.crt")));
    Process::start(name, command, scratch.join("kube-controller-manager.log"))
}

fn start_scheduler(programs: &Path, scratch: &Scratch, authority: &Authority, port: u16) -> Result<Process> {
    let name = "kube-scheduler";
    let identity = write_identity(authority, scratch, name, "system:kube-scheduler", NO_GROUP, port)?;
    let mut command = owned_program(programs, name);
    command.args(["--leader-elect=false", "--secure-port=0"]).arg(format!("--kubeconfig={}", identity.here.display()));
    Process::start(name, command, scratch.join("kube-scheduler.log"))
}

fn owned_program(programs: &Path, name: &str) -> Command {
    owned(&programs.join(name).display().to_string())
}

fn answers(programs: &Path, scratch: &Scratch, admin: &Path, port: u16) -> bool {
    // Far cheaper than a kubectl that finds no server.
    TcpStream::connect(("127.0.0.1", port)).is_ok()
        && run_kubectl(programs, scratch, admin, &["get", "--raw", "/readyz", "--request-timeout=5s"], "").is_ok()
}

fn run_kubectl(programs: &Path, scratch: &Scratch, kubeconfig: &Path, args: &[&str], input: &str) -> Result<String> {
    let mut child = owned_program(programs, "kubectl")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(args)
        // Its cache of what the API has.
        .env("HOME", scratch.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start kubectl")?;
    // A kubectl that takes no input has closed it; what it then says is the better reason.
    let _ = child.stdin.take().context("kubectl's input")?.write_all(input.as_bytes());
    let done = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "kubectl {}: {}", args.join(" "), said.trim());
    Ok(String::from_utf8(done.stdout)?.trim_end().to_owned())
}

/// Looks again and again until it is so.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > PATIENCE {
            bail!("{what}: not there after {PATIENCE:?} (BARNACLE_LAB_KEEP=1 keeps the logs)");
        }
        // To ask kubectl takes a tenth of a second of a processor, and who waits for long is in no hurry.
        let pause = if began.elapsed() < Duration::from_secs(2) { 250 } else { 1000 };
        std::thread::sleep(Duration::from_millis(pause));
    }
    Ok(())
}
