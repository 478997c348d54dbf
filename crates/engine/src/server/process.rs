//! What the operating system says of this process. Linux shows it in files;
//! elsewhere the figures are missing.

use std::fs::read_to_string;

/// Clock ticks a second in `/proc/self/stat`: fixed by the kernel's interface
/// on every architecture Alcid runs on, see proc(5) and sysconf(3).
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of memory that are in RAM.
pub(crate) fn resident_bytes() -> Option<u64> {
    kilobytes(&read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The machine's memory.
pub(crate) fn machine_bytes() -> Option<u64> {
    kilobytes(&read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Seconds of CPU time this process has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CpuTime {
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
    pub(crate) children_user_s: f64,
    pub(crate) children_system_s: f64,
}

pub(crate) fn cpu_time() -> Option<CpuTime> {
    parse_stat(&read_to_string("/proc/self/stat").ok()?)
}

fn parse_stat(stat: &str) -> Option<CpuTime> {
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    // `utime` is field 14 of proc(5), the twelfth after the name.
    let mut ticks = after_name.split_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
    let mut seconds = || Some(ticks.next()?? / TICKS_PER_SECOND);
    Some(CpuTime {
        user_s: seconds()?,
        system_s: seconds()?,
        children_user_s: seconds()?,
        children_system_s: seconds()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_spaces() {
        let stat = "77 (a) b c) S 1 77 77 0 -1 4194560 500 0 0 0 250 50 4 2 20 0 9 0 1234 5 6";
        let expected =
            CpuTime { user_s: 2.5, system_s: 0.5, children_user_s: 0.04, children_system_s: 0.02 };
        assert_eq!(parse_stat(stat), Some(expected));
        assert_eq!(parse_stat("77 (alcid) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn kilobytes_become_bytes() {
        assert_eq!(kilobytes("VmPeak: 9 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(kilobytes("VmPeak: 9 kB\n", "VmRSS:"), None);
    }
}
