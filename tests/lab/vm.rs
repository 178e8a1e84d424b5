//! A real kernel: QEMU in software, with this machine's own root below a layer that takes the writes.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::control::free_ports;
use crate::pieces::{need, piece};
use crate::scratch::{Scratch, owned};

/// How a VM is started.
#[derive(Clone)]
pub struct Options {
    /// A kernel that `tests/lab/build` knows: `6.1` or `6.12`.
    pub kernel: &'static str,
    /// Further words of the kernel's command line.
    pub append: &'static str,
    /// Whether systemd is the first program, and not the agent.
    pub systemd: bool,
    pub memory_mib: u32,
    /// With one, whatever is locked or atomic costs the emulator less.
    pub cpus: u32,
    /// Whether a controller's heads are hidden behind one multipath device.
    pub multipath: bool,
    /// Whether a person sits at the console, instead of a test behind the agent.
    pub person: bool,
    /// Disks (QEMU's own NVMe) that outlive a reboot.
    pub disks: &'static [Disk],
}

/// An ext4 filesystem. It is made outside, where that takes no time.
pub struct Disk {
    pub size: &'static str,
    /// Options of mkfs.
    pub made: &'static [&'static str],
}

impl Options {
    pub fn new(kernel: &'static str) -> Self {
        Self {
            kernel,
            append: "",
            systemd: false,
            memory_mib: 3072,
            cpus: 2,
            multipath: false,
            person: false,
            disks: &[],
        }
    }
}

/// A VM that runs. It ends with its owner.
pub struct Vm {
    qemu: Child,
    agent: Option<Agent>,
    port: u16,
    scraped: u16,
    pub scratch: Rc<Scratch>,
}

/// The end of the line to the agent inside.
struct Agent {
    write: UnixStream,
    read: BufReader<UnixStream>,
    next: u64,
}

/// What a command inside came to.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Under emulation a boot takes some 20 s of an idle machine; a busy one may need many times that.
const BOOT: Duration = Duration::from_secs(240);
/// All that an emulator has, but for what costs it much: with `erms` the kernel copies byte by byte, `la57` is one more
/// page table to walk, `smap` and `smep` are a switch at each copy.
const CPU: &str = "max,-erms,-la57,-smap,-smep";
/// The kernel would trust its cycle counter on no such CPU, and each look at the clock would leave the emulated code; nor
/// are there other tenants inside that its branches had to be kept from.
const CHEAP: &str = "tsc=reliable mitigations=off";
const MIB: f64 = 1_048_576.0;
const COMMAND: Duration = Duration::from_secs(300);
const TEXT: Duration = Duration::from_secs(60);
/// Where barnacle listens inside: all of it, and what the DaemonSet serves to scrapers.
const PAGE: u16 = 9917;
const METRICS: u16 = 9918;

fn guest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/guest")
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

impl Vm {
    /// Boots, and waits until the agent inside answers.
    pub fn boot(options: &Options) -> Result<Self> {
        need("qemu-system-x86_64", "qemu-system-x86")?;
        if options.systemd {
            need("systemd-run", "systemd")?;
        }
        let scratch = Rc::new(Scratch::new(&format!("vm-{}", options.kernel))?);
        if !options.disks.is_empty() {
            need("mkfs.ext4", "e2fsprogs")?;
        }
        for (number, disk) in options.disks.iter().enumerate() {
            let file = scratch.join(&format!("disk{number}"));
            run(Command::new("truncate").args(["-s", disk.size]).arg(&file))?;
            run(Command::new("mkfs.ext4").args(["-qF", "-m", "0"]).args(disk.made).arg(&file))?;
        }
        Self::start(options, scratch)
    }

    /// Pulls the plug and starts again; only the disks are kept.
    pub fn crash(mut self, options: &Options) -> Result<Self> {
        self.qemu.kill()?;
        self.qemu.wait()?;
        let scratch = Rc::clone(&self.scratch);
        Self::start(options, scratch)
    }

    fn start(options: &Options, scratch: Rc<Scratch>) -> Result<Self> {
        let kernel = piece(&format!("kernel-{}", options.kernel))?;
        let initrd = scratch.join("initrd");
        run(Command::new(guest().join("initrd")).arg(&kernel).arg(&initrd))?;
        let socket = scratch.join("agent");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        let [port, scraped] = free_ports()?;
        let yes = |on| if on { "Y" } else { "N" };
        let append = format!(
            "console=ttyS0 quiet panic=-1 psi=1 {CHEAP} nvme_core.multipath={} lab.guest={} lab.modules={} lab.init={} lab.person={} {}",
            yes(options.multipath),
            guest().display(),
            kernel.display(),
            if options.systemd { "systemd" } else { "agent" },
            if options.person { "yes" } else { "no" },
            options.append,
        );
        let mut qemu = if options.person { Command::new("qemu-system-x86_64") } else { owned("qemu-system-x86_64") };
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", CPU, "-nodefaults", "-no-reboot", "-display", "none"]);
        qemu.args(["-smp", &options.cpus.to_string(), "-m", &options.memory_mib.to_string()]);
        qemu.arg("-kernel").arg(kernel.join("vmlinux")).arg("-initrd").arg(&initrd).arg("-append").arg(append);
        qemu.args(["-fsdev", "local,id=h,path=/,security_model=none,readonly=on,multidevs=remap"]);
        qemu.args(["-device", "virtio-9p-pci,fsdev=h,mount_tag=host", "-device", "virtio-serial-pci"]);
        qemu.args([
            "-device",
            "virtserialport,chardev=agent,name=lab",
            "-device",
            "virtio-net-pci,netdev=n",
            "-netdev",
        ]);
        qemu.arg(format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:{PAGE},hostfwd=tcp:127.0.0.1:{scraped}-:{METRICS}"));
        qemu.arg("-chardev").arg(match options.person {
            true => "null,id=agent".to_owned(),
            false => format!("socket,id=agent,path={}", socket.display()),
        });
        for (number, _) in options.disks.iter().enumerate() {
            let file = scratch.join(&format!("disk{number}"));
            qemu.arg("-drive").arg(format!("if=none,id=d{number},format=raw,cache=unsafe,file={}", file.display()));
            qemu.arg("-device").arg(format!("nvme,drive=d{number},serial=lab{number}"));
        }
        if options.person {
            qemu.args(["-serial", "mon:stdio"]);
        } else {
            qemu.arg("-serial").arg(format!("file:{}", scratch.join("console").display())).args(["-monitor", "none"]);
            qemu.stdin(Stdio::null()).stdout(Stdio::null());
        }
        let qemu = qemu.spawn().context("qemu-system-x86_64 (Debian: qemu-system-x86)")?;
        let mut vm = Self { qemu, agent: None, port, scraped, scratch };
        if !options.person {
            vm.agent = Some(vm.greet(&listener)?);
        }
        Ok(vm)
    }

    /// Waits until the person at the console has left.
    pub fn attend(mut self) -> Result<()> {
        let status = self.qemu.wait()?;
        ensure!(status.success(), "QEMU: {status}");
        Ok(())
    }

    fn greet(&mut self, listener: &UnixListener) -> Result<Agent> {
        listener.set_nonblocking(true)?;
        let end = Instant::now() + BOOT;
        let write = loop {
            match listener.accept() {
                Ok((write, _)) => break write,
                Err(late) if late.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                    if let Some(status) = self.qemu.try_wait()? {
                        bail!("QEMU ended before the VM began: {status}");
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error).context("QEMU does not connect to the agent's socket"),
            }
        };
        write.set_nonblocking(false)?;
        write.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut agent = Agent { read: BufReader::new(write.try_clone()?), write, next: 0 };
        let hello = self.answer(&mut agent, BOOT).with_context(|| self.console())?;
        ensure!(hello.code == 0, "the agent's first word was {hello:?}");
        Ok(agent)
    }

    /// Last lines of the console, for who has to find out.
    pub fn console(&self) -> String {
        let text = std::fs::read(self.scratch.join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        format!("the console's last lines:\n{}", lines[lines.len().saturating_sub(25)..].join("\n"))
    }

    fn line(&mut self, agent: &mut Agent, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        let mut line = String::new();
        loop {
            match agent.read.read_line(&mut line) {
                Ok(0) => bail!("the VM ended"),
                Ok(_) if line.ends_with('\n') => return Ok(line),
                Ok(_) => {}
                Err(late) if is_late(&late) => {}
                Err(error) => return Err(error.into()),
            }
            ensure!(Instant::now() < end, "no answer within {} s", patience.as_secs());
            if let Some(status) = self.qemu.try_wait()? {
                bail!("the VM ended: {status}");
            }
        }
    }

    fn answer(&mut self, agent: &mut Agent, patience: Duration) -> Result<Output> {
        let line = self.line(agent, patience)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, code, stdout, stderr] = words[..] else { bail!("the guest agent answered {line:?}") };
        ensure!(id == agent.next.to_string(), "the agent answered {id}, not {}", agent.next);
        let (stdout, stderr) = (self.text(agent, stdout.parse()?)?, self.text(agent, stderr.parse()?)?);
        Ok(Output { code: code.parse()?, stdout, stderr })
    }

    /// So many bytes of the agent's.
    fn text(&mut self, agent: &mut Agent, length: usize) -> Result<String> {
        let end = Instant::now() + TEXT;
        let (mut bytes, mut done) = (vec![0; length], 0);
        while done < length {
            match agent.read.read(&mut bytes[done..]) {
                Ok(0) => bail!("the VM ended"),
                Ok(more) => done += more,
                Err(late) if is_late(&late) => {
                    ensure!(Instant::now() < end, "only {done} of {length} bytes within {} s", TEXT.as_secs());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Runs a command of bash inside, as root, with the functions of `guest/lib` and `guest/node`.
    pub fn output(&mut self, command: &str) -> Result<Output> {
        let mut agent = self.agent.take().context("no guest agent is connected")?;
        agent.next += 1;
        let began = Instant::now();
        let line = command.replace('\\', "\\\\").replace('\n', "\\n");
        let outcome = writeln!(agent.write, "{} {line}", agent.next)
            .map_err(anyhow::Error::from)
            .and_then(|()| self.answer(&mut agent, COMMAND))
            .with_context(|| format!("in the VM: {command}"));
        self.agent = Some(agent);
        if std::env::var_os("BARNACLE_LAB_LOUD").is_some() {
            let first = command.trim().lines().next().unwrap_or_default();
            eprintln!("      {:6.2} s  {first}", began.elapsed().as_secs_f64());
        }
        outcome
    }

    /// The same, and it must succeed. What it printed, without the last newline.
    pub fn sh(&mut self, command: &str) -> Result<String> {
        let Output { code, stdout, stderr } = self.output(command)?;
        ensure!(code == 0, "in the VM: {command}\nexit code {code}: {stderr}{stdout}");
        Ok(stdout.trim_end().to_owned())
    }

    /// That barnacle, which `barnacle` starts in a control group of 64 MiB, kept to its budget there: the peak that the kernel has
    /// counts page cache as well.
    pub fn expect_within_budget(&mut self) -> Result<()> {
        let figures = self.sh("limited_figures")?;
        let numbers: Vec<u64> = figures.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [peak, max, oom] = numbers[..] else { bail!("the control group's figures are {figures:?}") };
        println!("   memory in a group of 64 MiB: {:.1} MiB at most; at the limit {max} times", peak as f64 / MIB);
        ensure!(peak <= 48 << 20 && max == 0 && oom == 0, "peak {peak}, max {max}, oom {oom}");
        Ok(())
    }

    /// Seconds between a command's `event` line and a moment here, by two clocks that are compared now.
    pub fn since(&mut self, said: &str, seen: SystemTime) -> Result<f64> {
        let event =
            said.lines().find_map(|line| line.strip_prefix("event ")).context("the command printed no event")?;
        let event: f64 = event.parse().with_context(|| event.to_owned())?;
        let before = unix(SystemTime::now())?;
        let inside = self.clock()?;
        let after = unix(SystemTime::now())?;
        ensure!(after - before < 0.5, "the clocks cannot be compared: an answer took {:.2} s", after - before);
        Ok(unix(seen)? - event + inside - f64::midpoint(before, after))
    }

    /// What time it is inside.
    fn clock(&mut self) -> Result<f64> {
        let mut agent = self.agent.take().context("no guest agent is connected")?;
        agent.next += 1;
        let id = agent.next;
        writeln!(agent.write, "{id} time")?;
        let answered = self.line(&mut agent, Duration::from_secs(10));
        self.agent = Some(agent);
        let line = answered?;
        let time = line.split_whitespace().last().with_context(|| line.clone())?;
        time.parse().with_context(|| line.clone())
    }

    /// Where the DaemonSet's metrics can be reached from here.
    pub fn scraped(&self) -> String {
        format!("127.0.0.1:{}", self.scraped)
    }

    /// Where barnacle's address inside can be reached from here.
    pub fn metrics(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn unix(time: SystemTime) -> Result<f64> {
    Ok(time.duration_since(UNIX_EPOCH)?.as_secs_f64())
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
