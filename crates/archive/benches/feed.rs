//! What feeding the base costs, by batch size and settings (docs/decisions/0003):
//! `cargo bench -p archive --bench feed -- n=1000000 batch=250000 batches=25 l0=4 comp=none`.
//!
//! Sorted runs of random keys are ingested again and again and compaction settles
//! after each, then the tree is opened anew and read. Linux only (`/proc`).

#![allow(missing_docs, clippy::disallowed_methods, reason = "a program that measures real time")]

use lsm_tree::compaction::Leveled;
use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use lsm_tree::config::*;
use lsm_tree::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Process CPU (user + system, all threads) in microseconds.
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let rest = &s[s.rfind(')').unwrap() + 2..];
    let f: Vec<&str> = rest.split(' ').collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) * 10_000.0
}
fn written() -> f64 {
    let s = std::fs::read_to_string("/proc/self/io").unwrap();
    s.lines().find_map(|l| l.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}
fn status(name: &str) -> f64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines()
        .find_map(|l| l.strip_prefix(name))
        .unwrap()
        .trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .unwrap()
        / 1024.0
}
fn du(p: &Path) -> (u64, u64) {
    let mut bytes = 0;
    let mut files = 0;
    if let Ok(dir) = std::fs::read_dir(p) {
        for e in dir.flatten() {
            let Ok(m) = e.metadata() else { continue };
            if m.is_dir() {
                let (b, f) = du(&e.path());
                bytes += b;
                files += f;
            } else {
                bytes += m.len();
                files += 1;
            }
        }
    }
    (bytes, files)
}
struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }
    fn below(&mut self, n: u64) -> u64 {
        ((self.next() as u128 * n as u128) >> 64) as u64
    }
}
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
/// LSM key of key number `i`: space, bucket (leading 16 bits of the hash), key, terminator.
fn key(i: u64) -> [u8; 23] {
    let mut k = [0u8; 23];
    let h = mix(i ^ 0x1234_5678);
    k[3..5].copy_from_slice(&((h >> 48) as u16).to_be_bytes());
    let text = format!("key:{i:012}");
    k[5..21].copy_from_slice(text.as_bytes());
    k
}
fn fill(rng: &mut Rng, v: &mut [u8]) {
    for c in v.chunks_mut(16) {
        let r = rng.next();
        for (j, b) in c.iter_mut().enumerate() {
            *b = b"0123456789abcdef"[((r >> (j * 4)) & 15) as usize];
        }
    }
}

struct Opt(HashMap<String, String>);
impl Opt {
    fn s(&self, k: &str, d: &str) -> String {
        self.0.get(k).cloned().unwrap_or_else(|| d.into())
    }
    fn n(&self, k: &str, d: u64) -> u64 {
        self.0.get(k).map_or(d, |v| v.parse().unwrap())
    }
    fn f(&self, k: &str, d: f32) -> f32 {
        self.0.get(k).map_or(d, |v| v.parse().unwrap())
    }
}

fn config(path: &Path, o: &Opt, seqno: SequenceNumberCounter) -> Config {
    let mut c = Config::new(path, seqno, SequenceNumberCounter::default())
        .use_cache(Arc::new(Cache::with_capacity_bytes(o.n("cache", 64) << 20)))
        .use_descriptor_table(Some(Arc::new(DescriptorTable::new(o.n("fds", 256) as usize))))
        .data_block_size_policy(BlockSizePolicy::all(o.n("block", 4096) as u32))
        .data_block_restart_interval_policy(RestartIntervalPolicy::all(o.n("restart", 16) as u8))
        .data_block_hash_ratio_policy(HashRatioPolicy::all(o.f("hash", 0.0)))
        .expect_point_read_hits(o.n("hits", 0) == 1);
    match o.s("comp", "default").as_str() {
        "none" => {
            c = c.data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        }
        "lz4" => c = c.data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4)),
        _ => {}
    }
    let bloom = o.f("bloom", 10.0);
    c = c.filter_policy(if bloom == 0.0 {
        FilterPolicy::disabled()
    } else {
        FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(bloom)))
    });
    match o.s("pin", "default").as_str() {
        "all" => {
            c = c
                .index_block_pinning_policy(PinningPolicy::all(true))
                .filter_block_pinning_policy(PinningPolicy::all(true))
        }
        "none" => {
            c = c
                .index_block_pinning_policy(PinningPolicy::disabled())
                .filter_block_pinning_policy(PinningPolicy::disabled())
        }
        _ => {}
    }
    match o.s("part", "default").as_str() {
        "all" => {
            c = c
                .index_block_partitioning_policy(PinningPolicy::all(true))
                .filter_block_partitioning_policy(PinningPolicy::all(true))
        }
        "none" => {
            c = c
                .index_block_partitioning_policy(PinningPolicy::disabled())
                .filter_block_partitioning_policy(PinningPolicy::disabled())
        }
        _ => {}
    }
    if o.n("filter", 0) == 1 {
        c = c.with_compaction_filter_factory(Some(Arc::new(Horizon(Arc::new(AtomicU64::new(
            u64::MAX,
        ))))));
    }
    if o.n("kv", 0) > 0 {
        c = c.with_kv_separation(Some(
            KvSeparationOptions::default().separation_threshold(o.n("kv", 512) as u32),
        ));
    }
    c
}
fn strategy(o: &Opt) -> Arc<Leveled> {
    Arc::new(
        Leveled::default()
            .with_l0_threshold(o.n("l0", 4) as u8)
            .with_table_target_size(o.n("target", 64) << 20)
            .with_level_ratio_policy(vec![o.f("ratio", 10.0)]),
    )
}
fn levels(t: &AnyTree) -> String {
    (0..7)
        .filter(|&i| t.level_table_count(i).unwrap_or(0) > 0)
        .map(|i| format!("L{i}:{}", t.level_table_count(i).unwrap()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Keeps, per key, every version above the horizon and the newest at or below it.
/// The first 8 bytes of a value are its batch's revision; a deleted key is a value of its own.
struct Horizon(Arc<AtomicU64>);
struct HorizonFilter {
    horizon: u64,
    key: Vec<u8>,
    settled: bool,
}
impl std::panic::RefUnwindSafe for Horizon {}
impl Factory for Horizon {
    fn name(&self) -> &str {
        "horizon"
    }
    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(HorizonFilter {
            horizon: self.0.load(Ordering::Acquire),
            key: vec![],
            settled: false,
        })
    }
}
impl CompactionFilter for HorizonFilter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, ctx: &Context) -> Result<Verdict> {
        let value = item.value()?;
        let rev = u64::from_be_bytes(value[..8].try_into().unwrap());
        let gone = value.len() == 8;
        if self.key != **item.key() {
            self.key.clear();
            self.key.extend_from_slice(item.key());
            self.settled = false;
        }
        if self.settled {
            return Ok(Verdict::Destroy);
        }
        if rev <= self.horizon {
            self.settled = true;
            if gone && ctx.is_last_level {
                return Ok(Verdict::Destroy);
            }
        }
        Ok(Verdict::Keep)
    }
}

fn main() {
    let options = std::env::args()
        .filter_map(|a| a.split_once('=').map(|(k, v)| (k.to_string(), v.to_string())));
    feed(&Opt(options.collect()));
}

fn feed(o: &Opt) {
    let n = o.n("n", 1_000_000);
    let batch = o.n("batch", 250_000);
    let batches = o.n("batches", 24);
    let vlen = o.n("value", 32) as usize;
    let way = o.s("way", "ingest");
    let load = o.n("load", 0) == 1;
    let path = std::env::temp_dir().join(format!("alcid-feed-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    // All keys in LSM order; `load` hands each out once, else random subsets are overwritten.
    let mut keys: Vec<[u8; 23]> = (0..n).map(key).collect();
    if !load {
        keys.sort_unstable();
    }
    let mut order: Vec<u32> = (0..n as u32).collect();
    let mut rng = Rng(7);
    if load {
        for i in (1..order.len()).rev() {
            order.swap(i, rng.below(i as u64 + 1) as usize);
        }
    }
    let seqno = SequenceNumberCounter::default();
    let tree = Some(config(&path, o, seqno.clone()).open().unwrap());
    let st = strategy(o);
    let filter = o.n("filter", 0) == 1;
    // A reader of cached keys beside the feeding: how long does a get wait at most?
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = (o.n("reader", 0) == 1).then(|| {
        let (tree, stop) = (tree.clone().unwrap(), stop.clone());
        std::thread::spawn(move || {
            let mut waits = vec![];
            let mut rng = Rng(3);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let t = Instant::now();
                std::hint::black_box(tree.get(key(rng.below(1000)), SeqNo::MAX).unwrap());
                waits.push(t.elapsed().as_secs_f32() * 1e3);
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            waits.sort_by(f32::total_cmp);
            let at = |q: f64| waits[((waits.len() - 1) as f64 * q) as usize];
            println!(
                "  reader: {} gets, ms: median {:.3} p99 {:.2} p99.9 {:.2} max {:.1}",
                waits.len(),
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            );
        })
    });
    let mut val = vec![0u8; vlen];
    let (mut feed_cpu, mut comp_cpu, mut wall, mut fed) = (0.0, 0.0, 0.0, 0u64);
    let mut peak_files = 0;
    let mut peak_bytes = 0;
    let mut max_finish = 0.0f64;
    let w0 = written();
    let rounds = if load { n.div_ceil(batch) } else { batches };
    let mut rev = 0u64;
    for b in 0..rounds {
        let picked: Vec<[u8; 23]> = if load {
            let mut p: Vec<_> = order[(b * batch) as usize..((b + 1) * batch).min(n) as usize]
                .iter()
                .map(|&i| keys[i as usize])
                .collect();
            p.sort_unstable();
            p
        } else if b == 0 {
            keys.clone()
        } else {
            let (mut left, mut want) = (n, batch.min(n));
            let mut p = Vec::with_capacity(batch as usize);
            for k in &keys {
                if rng.below(left) < want {
                    p.push(*k);
                    want -= 1;
                }
                left -= 1;
            }
            p
        };
        rev += 4 * picked.len() as u64;
        let t = Instant::now();
        let c0 = cpu();
        match way.as_str() {
            "ingest" => {
                let tree = tree.as_ref().unwrap();
                let mut i = tree.ingestion().unwrap();
                for k in &picked {
                    fill(&mut rng, &mut val);
                    if o.n("filter", 0) == 1 {
                        val[..8].copy_from_slice(&rev.to_be_bytes());
                    }
                    i.write(&k[..], &val[..]).unwrap();
                }
                seqno.set(rev);
                let f = Instant::now();
                i.finish().unwrap();
                max_finish = max_finish.max(f.elapsed().as_secs_f64());
            }
            "memtable" => {
                let tree = tree.as_ref().unwrap();
                for k in &picked {
                    fill(&mut rng, &mut val);
                    tree.insert(&k[..], &val[..], rev);
                }
                seqno.set(rev + 1);
                tree.flush_active_memtable(rev + 1).unwrap();
            }
            other => panic!("way={other}: ingest or memtable"),
        }
        let c1 = cpu();
        if let Some(tree) = &tree {
            loop {
                let lazy = o.n("lazy", 0);
                if lazy > 0 {
                    let v = tree.current_version();
                    let l0 = v.level(0).map_or(0, |l| l.size());
                    let below = (tree.disk_space() - l0).min(256 << 20);
                    if l0 * 100 < below * lazy && tree.l0_run_count() < 32 {
                        break;
                    }
                }
                let v = tree.current_version().id();
                seqno.set(rev);
                tree.compact(st.clone(), if filter { 0 } else { rev + 1 }).unwrap();
                if filter {
                    tree.get_version_history_lock().maintenance(&path, SeqNo::MAX).unwrap();
                }
                let (bytes, files) = du(&path);
                peak_files = peak_files.max(files);
                peak_bytes = peak_bytes.max(bytes);
                if tree.current_version().id() == v {
                    break;
                }
            }
        }
        wall += t.elapsed().as_secs_f64();
        let c2 = cpu();
        // The first batch of an overwriting run only fills the tree.
        if load || b > 0 {
            feed_cpu += c1 - c0;
            comp_cpu += c2 - c1;
            fed += picked.len() as u64;
        }
        let (bytes, files) = du(&path);
        peak_files = peak_files.max(files);
        peak_bytes = peak_bytes.max(bytes);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    if let Some(r) = reader {
        r.join().unwrap();
    }
    // What filling values and copying keys alone costs.
    let c = cpu();
    let mut sink = 0u64;
    let reps = 4_000_000 / (vlen as u64 / 32).max(1);
    for i in 0..reps {
        fill(&mut rng, &mut val);
        sink ^= u64::from(val[(i % 16) as usize]);
    }
    let gen_cost = (cpu() - c) / reps as f64;
    std::hint::black_box(sink);
    let w = written() - w0;
    let total = fed + if load { 0 } else { n };
    let (bytes, files) = du(&path);
    println!(
        "feed way={way} n={n} batch={batch} rounds={rounds} l0={} target={} ratio={} comp={} block={} bloom={} hash={} restart={} kv={} value={vlen} filter={filter} lazy={} hits={} pin={} part={}: cpu/entry {:.3} us (feed {:.3} + compact {:.3}; gen {:.3} taken off) write/entry {:.0} B disk/key {:.1} B peak disk {:.0} MB files {files} peak files {peak_files} rss {:.0} MB hwm {:.0} MB wall {:.1} s longest finish {:.0} ms  {}",
        o.n("l0", 4),
        o.n("target", 64),
        o.f("ratio", 10.0),
        o.s("comp", "default"),
        o.n("block", 4096),
        o.f("bloom", 10.0),
        o.f("hash", 0.0),
        o.n("restart", 16),
        o.n("kv", 0),
        o.n("lazy", 0),
        o.n("hits", 0),
        o.s("pin", "default"),
        o.s("part", "default"),
        (feed_cpu + comp_cpu) / fed as f64 - gen_cost,
        feed_cpu / fed as f64 - gen_cost,
        comp_cpu / fed as f64,
        gen_cost,
        w / total as f64,
        bytes as f64 / n as f64,
        peak_bytes as f64 / 1e6,
        status("VmRSS"),
        status("VmHWM"),
        wall,
        max_finish * 1e3,
        tree.as_ref().map(levels).unwrap_or_default(),
    );
    drop(tree);
    drop(keys);
    drop(order);
    if o.n("reads", 1) == 1 {
        open_and_read(&path, o, n);
    }
    let _ = std::fs::remove_dir_all(&path);
}

fn open_and_read(path: &Path, o: &Opt, n: u64) {
    let rss0 = status("VmRSS");
    let t = Instant::now();
    let c = cpu();
    let tree = config(path, o, SequenceNumberCounter::new(1 << 40)).open().unwrap();
    let opened = t.elapsed().as_secs_f64() * 1e3;
    let open_cpu = cpu() - c;
    let rss1 = status("VmRSS");
    let t = Instant::now();
    let c = cpu();
    let mut count = 0u64;
    for g in tree.iter(SeqNo::MAX, None) {
        let (k, v) = g.into_inner().unwrap();
        std::hint::black_box((k, v));
        count += 1;
    }
    let it = (cpu() - c) / count as f64;
    let itw = count as f64 / t.elapsed().as_secs_f64();
    let mut rng = Rng(99);
    let reps = o.n("gets", 300_000);
    for _ in 0..reps {
        std::hint::black_box(tree.get(key(rng.below(n)), SeqNo::MAX).unwrap());
    }
    let c = cpu();
    let mut hit = 0;
    for _ in 0..reps {
        hit += u64::from(tree.get(key(rng.below(n)), SeqNo::MAX).unwrap().is_some());
    }
    let get = (cpu() - c) / reps as f64;
    let c = cpu();
    let mut miss = 0;
    for _ in 0..reps {
        miss += u64::from(tree.get(key(n + rng.below(n)), SeqNo::MAX).unwrap().is_none());
    }
    let getm = (cpu() - c) / reps as f64;
    let c = cpu();
    let mut got = 0u64;
    let scans = o.n("scans", 20_000);
    for _ in 0..scans {
        let b = (rng.next() as u16).to_be_bytes();
        for g in tree.prefix([0, 0, 0, b[0], b[1]], SeqNo::MAX, None) {
            std::hint::black_box(g.into_inner().unwrap());
            got += 1;
        }
    }
    let scan = (cpu() - c) / scans as f64;
    println!(
        "  read: open {opened:.1} ms (cpu {:.0} ms, +{:.0} MB rss) iter {count} entries {:.3} us cpu each, {:.2} M/s; get hit {:.2} us ({:.2}) miss {:.2} us ({:.2}); bucket scan {:.1} us for {:.1} keys; rss {:.0} MB; filters {:.1} MB pinned {:.1} MB index pinned {:.1} MB",
        open_cpu / 1e3,
        rss1 - rss0,
        it,
        itw / 1e6,
        get,
        hit as f64 / reps as f64,
        getm,
        miss as f64 / reps as f64,
        scan,
        got as f64 / scans as f64,
        status("VmRSS"),
        tree.filter_size() as f64 / 1e6,
        tree.pinned_filter_size() as f64 / 1e6,
        tree.pinned_block_index_size() as f64 / 1e6,
    );
}
