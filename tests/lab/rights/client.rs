//! Requests to the API server as they are on the wire: kubectl would read first, and be refused there.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::control::ControlPlane;
use crate::scratch::owned;

pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const MERGE: &str = "application/merge-patch+json";
pub const OPERATIONS: &str = "application/json-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";

/// An account with a bearer token.
pub struct Client {
    url: String,
    ca: PathBuf,
    token: String,
}

pub struct Answer {
    pub code: u16,
    /// What was answered: an object, or the reason of a refusal.
    pub body: Value,
    asked: String,
}

/// Who must have refused.
#[derive(Clone, Copy)]
pub enum By<'a> {
    /// The verb and the resource that it names.
    Rbac(&'a str, &'a str),
    /// Words of the policy's own message.
    Policy(&'a str),
    /// Words of the API server's own validation.
    Validation(&'a str),
}

impl Client {
    /// The administrator, by an account of its own. To be called once for a control plane.
    pub fn admin(plane: &ControlPlane) -> Result<Self> {
        plane.kubectl(&["create", "serviceaccount", "lab-admin"])?;
        let role = ["clusterrolebinding", "lab-admin", "--clusterrole=cluster-admin"];
        plane.kubectl(&[&["create"], &role[..], &["--serviceaccount=default:lab-admin"]].concat())?;
        Ok(Self::new(plane, plane.kubectl(&["create", "token", "lab-admin"])?))
    }

    pub fn new(plane: &ControlPlane, token: String) -> Self {
        Self { url: plane.url(), ca: plane.ca(), token }
    }

    pub fn get(&self, path: &str) -> Result<Answer> {
        self.ask("GET", path, JSON, &Value::Null, &[])
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.ask("POST", path, JSON, body, &[])
    }

    /// As the agent does it.
    pub fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        self.ask("PATCH", path, STRATEGIC, body, &[])
    }

    pub fn ask(&self, method: &str, path: &str, form: &str, body: &Value, headers: &[&str]) -> Result<Answer> {
        let mut child = owned("curl")
            .args(["-sS", "--max-time", "60", "--cacert"])
            .arg(&self.ca)
            .args(["-X", method, "-H", &format!("Authorization: Bearer {}", self.token)])
            .args(["-H", &format!("Content-Type: {form}"), "--data-binary", "@-", "-w", "\n%{http_code}"])
            .args(headers.iter().flat_map(|header| ["-H", header]))
            .arg(format!("{}{path}", self.url))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start curl (Debian: curl)")?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        child.stdin.take().context("curl's input")?.write_all(body.as_bytes())?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "curl {method} {path}: {}", String::from_utf8_lossy(&done.stderr));
        let said = String::from_utf8(done.stdout)?;
        let (text, code) = said.rsplit_once('\n').context("curl ends with the code")?;
        // A watch answers with a line for each change.
        let answered = serde_json::from_str(text).unwrap_or_else(|_| json!({"message": text}));
        Ok(Answer { code: code.parse()?, body: answered, asked: format!("{method} {path} {body}") })
    }
}

impl Answer {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// It was done; what came of it.
    pub fn done(self) -> Result<Value> {
        ensure!(matches!(self.code, 200 | 201), "{}: {} {}", self.asked, self.code, self.message());
        Ok(self.body)
    }

    /// That the account may ask it: what is asked for may not be there.
    pub fn granted(self) -> Result<()> {
        let (code, message) = (self.code, self.message());
        ensure!(!matches!(code, 401 | 403), "{}: granted expected: {code} {message}", self.asked);
        Ok(())
    }

    pub fn refused(self, by: By<'_>) -> Result<()> {
        let (code, words) = match by {
            By::Rbac(verb, resource) => (403, format!("cannot {verb} resource \"{resource}\"")),
            By::Policy(words) => (422, words.to_owned()),
            By::Validation(words) => (422, words.to_owned()),
        };
        let policy = self.message().contains("ValidatingAdmissionPolicy");
        if self.code == code && self.message().contains(&words) && policy == matches!(by, By::Policy(_)) {
            return Ok(());
        }
        bail!("{}: {code} {words:?} expected: {} {}", self.asked, self.code, self.body)
    }
}
