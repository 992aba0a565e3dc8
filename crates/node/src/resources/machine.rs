//! How large the machine is, or the part of it that the process may use.

use std::{fs, path::Path};

/// What a machine has. `None` where it does not tell: it is asked as Linux is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory, or of it what the process's control group may use.
    pub memory: Option<usize>,
    /// File descriptors that the process may have open (the soft limit).
    pub descriptors: Option<usize>,
}

impl Machine {
    /// Asks the operating system.
    pub fn measure() -> Self {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let installed = read("proc/meminfo").and_then(|text| memory_total(&text));
        let granted = read("proc/self/cgroup").and_then(|text| control_group_limit(&text, &read));
        let descriptors = read("proc/self/limits").and_then(|text| open_files(&text));
        Self { memory: installed.into_iter().chain(granted).min(), descriptors }
    }
}

/// From the line `MemTotal: 1234 kB` of proc(5).
fn memory_total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<usize>().ok()?.checked_mul(1024)
}

/// The least that any group allows which the process is in: cgroups(7), of version 2, `0::/path`, or of version 1,
/// `7:memory:/path`. In a container, the path may be that outside of it, and the files those at the top.
fn control_group_limit(groups: &str, read: &impl Fn(&str) -> Option<String>) -> Option<usize> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next(), fields.next());
        let (top, file) = match controllers {
            Some("") => ("sys/fs/cgroup", "memory.max"),
            Some(controllers) if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let path = Path::new(path.unwrap_or_default().trim_start_matches('/'));
        // `max` is no number, and so no limit.
        let of_group =
            |group: &Path| read(Path::new(top).join(group).join(file).to_str()?)?.trim().parse().ok();
        path.ancestors().filter_map(of_group).collect::<Vec<usize>>()
    });
    limits.min()
}

/// From the line `Max open files  1024  4096  files` of proc(5).
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Machine {
        let root = std::env::temp_dir().join(format!(
            "peerloom-machine-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let machine = Machine::below(&root);
        let _ = fs::remove_dir_all(root);
        machine
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        8000000 kB\nMemFree:         1 kB\n");
    const MIB: usize = 1 << 20;

    #[test]
    fn a_machine_without_bounds_is_all_of_its_memory() {
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024     524288    files\n";
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/user.slice/session\n"),
            ("sys/fs/cgroup/user.slice/session/memory.max", "max\n"),
            ("proc/self/limits", limits),
        ];
        let expected = Machine { memory: Some(8_000_000 * 1024), descriptors: Some(1024) };
        assert_eq!(machine(&files), expected);
        assert_eq!(
            machine(&[("proc/self/limits", "Max open files unlimited unlimited files")]),
            Machine::default()
        );
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "536870912\n"),
            ("sys/fs/cgroup/outer/memory.max", "268435456\n"),
        ];
        assert_eq!(machine(&files).memory, Some(256 * MIB));
        let of_a_container = [
            MEMINFO,
            ("proc/self/cgroup", "9:cpu,cpuacct:/docker/1\n7:memory:/docker/1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ];
        assert_eq!(machine(&of_a_container).memory, Some(128 * MIB));
    }
}
