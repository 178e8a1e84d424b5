//! What a scraper outside sees of an agent inside.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Between two looks: an answer is work for an emulated machine.
const LOOK: Duration = Duration::from_secs(1);

/// An agent's address, as it is reached from here.
#[derive(Clone)]
pub struct Watch {
    address: String,
}

/// A finding, as the report has it.
#[derive(Clone, Debug)]
pub struct Found {
    pub kind: String,
    pub confirmed: bool,
    /// All that is said of it, for looking words up.
    pub text: String,
}

impl Watch {
    pub fn new(address: String) -> Self {
        Self { address }
    }

    /// The body of a path.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{path}: no answer: {answer:?}"))?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(body.to_owned())
    }

    pub fn report(&self) -> Result<Value> {
        serde_json::from_str(&self.get("/api/v1/report")?).context("/api/v1/report")
    }

    pub fn findings(&self) -> Result<Vec<Found>> {
        let report = self.report()?;
        let findings = report["findings"].as_array().context("/api/v1/report: no list of findings")?;
        Ok(findings
            .iter()
            .map(|finding| Found {
                kind: finding["kind"].as_str().unwrap_or_default().to_owned(),
                confirmed: finding["confirmed"] == true,
                text: finding.to_string(),
            })
            .collect())
    }

    /// Looks until it is so; what was seen last where it never is.
    pub fn until(&self, what: &str, patience: Duration, so: impl Fn(&[Found]) -> bool) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let findings = self.findings();
            match &findings {
                Ok(findings) if so(findings) => return Ok(began.elapsed()),
                _ if began.elapsed() < patience => std::thread::sleep(LOOK),
                Ok(findings) => {
                    let seen: Vec<&str> = findings.iter().map(|f| f.text.as_str()).collect();
                    bail!("not within {} s: {what}; there is:\n{}", patience.as_secs(), seen.join("\n"))
                }
                Err(why) => bail!("not within {} s: {what}: {why:#}", patience.as_secs()),
            }
        }
    }

    /// Starts to look for a finding in `/metrics`: when it is there.
    pub fn appearance(&self, kind: &str, words: &str) -> JoinHandle<Result<SystemTime>> {
        let (watch, kind, words) = (self.clone(), format!("kind=\"{kind}\""), words.to_owned());
        let began = Instant::now();
        std::thread::spawn(move || {
            loop {
                let metrics = watch.get("/metrics").unwrap_or_default();
                let mut infos = metrics.lines().filter(|line| line.starts_with("barnacle_finding_info{"));
                if infos.any(|line| line.contains(&kind) && line.contains(&words)) {
                    return Ok(SystemTime::now());
                }
                ensure!(began.elapsed() < Duration::from_secs(60), "{kind} {words} is not in /metrics within 60 s");
                std::thread::sleep(Duration::from_millis(50));
            }
        })
    }

    /// Waits until so many cycles were made.
    pub fn until_passes(&self, wanted: u64) -> Result<()> {
        let passes = || {
            let metrics = self.get("/metrics")?;
            let line = metrics.lines().find_map(|line| line.strip_prefix("barnacle_collection_cycles_total "));
            line.context("/metrics has no barnacle_collection_cycles_total")?
                .parse::<u64>()
                .context("barnacle_collection_cycles_total")
        };
        for _ in 0..60 {
            if passes()? >= wanted {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        bail!("there were no {wanted} passes within a minute")
    }

    /// Whether a kind could not be evaluated.
    pub fn is_not_evaluated(&self, kind: &str) -> Result<bool> {
        let report = self.report()?;
        let kinds = report["kinds"].as_array().context("/api/v1/report: no list of kinds")?;
        let row = kinds.iter().find(|row| row["kind"] == kind).with_context(|| format!("no kind {kind}"))?;
        Ok(row["state"] == "not-evaluated" || row["state"] == "needs-time")
    }

    /// How often each thing has begun a cycle.
    pub fn wakes(&self) -> Result<Vec<(String, u64)>> {
        let metrics = self.get("/metrics")?;
        let wake = |line: &str| {
            let (reason, count) = line.strip_prefix("barnacle_wakes_total{reason=\"")?.split_once("\"} ")?;
            Some((reason.to_owned(), count.parse().ok()?))
        };
        Ok(metrics.lines().filter_map(wake).collect())
    }
}
