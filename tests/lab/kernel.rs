//! Every detector of one machine, against the kernel itself.
use crate::vm::{Options, Vm};
use anyhow::Result;

pub fn proofs() -> Result<()> {
    let began = std::time::Instant::now();
    let mut vm = Vm::boot(&Options::new("6.1"))?;
    println!("booted {:?}", began.elapsed());
    println!("{:?}", vm.output("uname -a; cat /proc/mounts; ip addr; nproc; free -m; cat /sys/fs/cgroup/cgroup.controllers; cat /proc/pressure/memory"));
    println!(
        "{:?}",
        vm.output("ebs_attach vol-0123456789abcdef0 64M; ls -l /sys/block; cat /sys/class/nvme/*/{serial,model,state}")
    );
    println!("{}", vm.sh("/work/main/target/release/barnacle check || true")?);
    println!("done {:?}", began.elapsed());
    Ok(())
}
