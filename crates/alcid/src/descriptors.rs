//! How many clients the limit on open files leaves room for.

/// Files of the log, listeners, the diagnostics and the runtime, as Redis
/// reserves them.
const RESERVED: u32 = 32;

/// The most clients that can be connected, where the system says how many files
/// this process may open.
pub fn clients_max() -> Option<u32> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    Some(open_files(&limits)?.saturating_sub(RESERVED).max(1))
}

/// The soft limit on open files in Linux's table of limits.
fn open_files(limits: &str) -> Option<u32> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => None,
        number => Some(u32::try_from(number.parse::<u64>().ok()?).unwrap_or(u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max core file size        0                    unlimited            bytes     \n\
                     Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(table), Some(1024));
        assert_eq!(open_files(&table.replace("1024 ", "unlimited ")), None);
        assert_eq!(open_files(""), None);
    }
}
