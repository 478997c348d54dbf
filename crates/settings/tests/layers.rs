//! Precedence, errors, `CONFIG` and rewriting, as an operator meets them.

use settings::{
    Change, FileLayer, Fsync, HIDDEN_SECRET, Layers, Loaded, LogLevel, Origin, SETTINGS, Settings,
    config_get, config_set, load, rewrite,
};

fn file(text: &str) -> Layers<'_> {
    Layers { file: Some(FileLayer { name: "alcid.toml", text }), ..Layers::default() }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn origin_of(loaded: &Loaded, name: &str) -> Origin {
    let row = loaded.iter().find(|(setting, _, _)| setting.name() == name);
    row.unwrap().2.clone()
}

/// The messages of a load that must fail.
fn errors(layers: &Layers<'_>) -> Vec<String> {
    load(layers).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let mut layers = file("[server]\nport = 7001\nmax_connections = 5\ntimeout = \"5m\"\n");
    layers.environment = env(&[("ALCID_SERVER_PORT", "7002"), ("ALCID_MAX_CONNECTIONS", "6")]);
    layers.flags = vec![("port", "7003".to_owned())];
    let loaded = load(&layers).unwrap();
    assert_eq!(loaded.settings.port, 7003);
    assert_eq!(loaded.settings.max_connections, 6);
    assert_eq!(loaded.settings.timeout_s, 300);
    assert_eq!(loaded.settings.tcp_keepalive_s, 300);
    assert_eq!(origin_of(&loaded, "server.port"), Origin::Flag("port"));
    assert_eq!(
        origin_of(&loaded, "server.max_connections"),
        Origin::Environment("ALCID_MAX_CONNECTIONS".to_owned())
    );
    assert_eq!(
        origin_of(&loaded, "server.timeout"),
        Origin::File { name: "alcid.toml".to_owned(), line: 4 }
    );
    assert_eq!(origin_of(&loaded, "server.tcp_keepalive"), Origin::Default);
    assert!(loaded.show().contains("port = 7003  # --port\n"), "{}", loaded.show());
}

#[test]
fn every_key_can_come_from_its_variable() {
    for setting in SETTINGS.iter().filter(|setting| !setting.is_accepted_only()) {
        for name in setting.env().into_iter().chain(setting.short_env.map(str::to_owned)) {
            let value = match setting.kind {
                settings::Kind::Bool => "true",
                settings::Kind::Word(words) => words[0],
                settings::Kind::LogLevel => "debug",
                settings::Kind::EvictionPolicy => "lfu",
                settings::Kind::Events => "KEA",
                settings::Kind::OutputBuffers => "pubsub 1 2 3",
                settings::Kind::Integer { min, max } if min > 7 || max < 7 => unreachable!(),
                // Not below archive_lag.
                _ if setting.key == "archive_lag_max" => "0",
                settings::Kind::Size { .. } => "2MB",
                settings::Kind::Addresses => "127.0.0.7",
                settings::Kind::MappedBranches { .. } => "100=dev",
                // Any other needs a folder.
                settings::Kind::Schedule => "",
                _ => "7",
            };
            let layers = Layers { environment: env(&[(&name, value)]), ..Layers::default() };
            let loaded = load(&layers).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
            assert_eq!(origin_of(&loaded, &setting.name()), Origin::Environment(name));
        }
    }
}

#[test]
fn bind_address_takes_a_port() {
    let one = Layers {
        environment: env(&[("ALCID_BIND_ADDRESS", "127.0.0.2:7000")]),
        ..Layers::default()
    };
    let loaded = load(&one).unwrap();
    assert_eq!((loaded.settings.bind, loaded.settings.port), (vec!["127.0.0.2".to_owned()], 7000));
    let both = Layers {
        environment: env(&[("ALCID_BIND_ADDRESS", "127.0.0.2:7000"), ("ALCID_PORT", "7001")]),
        ..Layers::default()
    };
    assert_eq!(load(&both).unwrap().settings.port, 7001);
    let list = load(&file("[server]\nbind_address = [\"127.0.0.1\", \"::1\"]\n")).unwrap();
    assert_eq!(list.settings.bind, ["127.0.0.1", "::1"]);
}

#[test]
fn a_log_path_from_a_stronger_layer_turns_the_log_on() {
    let off = "[storage]\naof_enabled = false\naof_path = \"here\"\n";
    assert!(!load(&file(off)).unwrap().settings.log_enabled);
    let mut layers = file(off);
    layers.flags = vec![("aof-path", "there".to_owned())];
    let settings = load(&layers).unwrap().settings;
    assert!(settings.log_enabled);
    assert_eq!(settings.log_dir().to_str(), Some("there"));
    // A stronger word against the log is one for this start.
    layers.flags = vec![("no-log", "false".to_owned())];
    assert!(!load(&layers).unwrap().settings.log_enabled);
    layers.flags.push(("aof-path", "there".to_owned()));
    let expected = "--aof-path: storage.aof_path names a folder for the log, and --no-log turns the log off: leave one \
                    of them out";
    assert_eq!(errors(&layers), [expected]);
}

#[test]
fn log_and_archive_have_folders_of_their_own() {
    for text in [
        "data_dir = \"d\"\naof_path = \"d/archive/\"\n",
        "aof_path = \"./x\"\narchive_path = \"x\"\n",
    ] {
        let errors = errors(&file(&format!("[storage]\n{text}")));
        assert!(errors[0].contains("and the log's folder are the same, /"), "{errors:?}");
    }
}

#[test]
fn errors_name_place_key_value_range_and_the_nearest_name() {
    for (text, expected) in [
        (
            "[server]\nprot = 1\n",
            "alcid.toml:2: unknown key \"server.prot\"; did you mean \"server.port\"?",
        ),
        ("[sever]\n", "alcid.toml:1: unknown section \"sever\"; did you mean \"server\"?"),
        ("port = 1\n", "alcid.toml:1: unknown section \"port\""),
        (
            "[server]\nmax_memory = 1\n",
            "alcid.toml:2: unknown key \"server.max_memory\"; did you mean \"storage.max_memory\"?",
        ),
        (
            "[storage]\nappendfsync = \"no\"\n",
            "alcid.toml:2: unknown key \"storage.appendfsync\"; did you mean \"storage.aof_fsync\"?",
        ),
        (
            "[server]\n\nport = 70000\n",
            "alcid.toml:3: server.port = 70000: expected a whole number from 0 to 65535",
        ),
        (
            "[server]\nport = true\n",
            "alcid.toml:2: server.port = true: expected a whole number from 0 to 65535",
        ),
        (
            "[server]\nport = 1.5\n",
            "alcid.toml:2: server.port = 1.5: expected a whole number from 0 to 65535",
        ),
        (
            "[server.port]\nx = 1\n",
            "alcid.toml:1: server.port = a table: expected a whole number from 0 to 65535",
        ),
        (
            "[storage]\naof_fsync = \"never\"\n",
            "alcid.toml:2: storage.aof_fsync = \"never\": expected one of always, everysec, no",
        ),
        (
            "[storage]\neviction_policy = \"mru\"\n",
            "alcid.toml:2: storage.eviction_policy = \"mru\": expected one of noeviction, tier, allkeys-lru, \
             allkeys-lfu, allkeys-random, volatile-lru, volatile-lfu, volatile-random, volatile-ttl, or lru, lfu, \
             random, ttl for short",
        ),
        (
            "[storage]\nmax_memory = \"lots\"\n",
            "alcid.toml:2: storage.max_memory = \"lots\": expected a size such as 512MB or 1GB",
        ),
        (
            "[logging]\nfile = \"a\"\nfile_path = \"b\"\n",
            "alcid.toml:3: logging.file is given twice, also as logging.file_path",
        ),
        (
            "[security]\npassword = 123\n",
            "alcid.toml:2: security.password = (hidden): expected text without control characters",
        ),
        ("server = 1\n", "alcid.toml:1: server is a section: write [server] on its own line"),
        (
            "[[server]]\nport = 1\n",
            "alcid.toml:1: server is a section: write [server] on its own line",
        ),
    ] {
        assert_eq!(errors(&file(text)), [expected], "{text}");
    }
    assert!(errors(&file("[server]\nport = = 1\n"))[0].starts_with("alcid.toml:2: not TOML: "));
    let two = errors(&file("[server]\nport = -1\nhz = 0\n"));
    assert_eq!(two.len(), 2, "all problems are told at once: {two:?}");
}

#[test]
fn errors_of_environment_and_flags() {
    let mut layers = Layers { environment: env(&[("ALCID_PORT", "abc")]), ..Layers::default() };
    layers.flags = vec![("max-memory", "lots".to_owned())];
    assert_eq!(
        errors(&layers),
        [
            "ALCID_PORT: server.port = \"abc\": expected a whole number from 0 to 65535",
            "--max-memory: storage.max_memory = \"lots\": expected a size such as 512MB or 1GB",
        ]
    );
    let typo = Layers { environment: env(&[("ALCID_SERVER_PROT", "1")]), ..Layers::default() };
    assert_eq!(
        errors(&typo),
        [
            "ALCID_SERVER_PROT: unknown variable \"ALCID_SERVER_PROT\"; did you mean \"ALCID_SERVER_PORT\"?"
        ]
    );
}

#[test]
fn ports_of_branches_are_ports_and_nobody_elses() {
    let with = |value: &str| format!("[server]\nport = 7000\nbranch_ports = \"{value}\"\n");
    for value in ["", "7001=dev", "7001=dev,7002=dev:15 7003=main:1"] {
        let loaded = load(&file(&with(value))).unwrap();
        assert_eq!(loaded.settings.branch_ports, value);
    }
    for value in ["0=dev", "65536=dev", "7001=dev 7001=main", "7001=-dev", "dev", "dev=7001"] {
        let expected = format!(
            "alcid.toml:3: server.branch_ports = \"{value}\": expected port=branch or port=branch:database, with \
             spaces in between and each port from 1 to 65535 once"
        );
        assert_eq!(errors(&file(&with(value))), [expected]);
    }
    assert_eq!(
        errors(&file(&with("7001=dev:16 7000=dev"))),
        [
            "alcid.toml:3: server.branch_ports has 7001=dev:16, and server.databases is 16: give a database from 0 to 15",
            "alcid.toml:3: server.branch_ports gives port 7000 to the branch \"dev\", and server.port is 7000: choose \
             another for one of them",
        ]
    );
    // Wherever the two come from.
    let text = with("7001=dev");
    let mut layers = file(&text);
    layers.flags = vec![("port", "7001".to_owned())];
    assert_eq!(errors(&layers).len(), 1);
}

#[test]
fn numbers_of_branches_are_beyond_the_databases() {
    let with = |value: &str| format!("[server]\ndatabases = 4\nselect_branches = \"{value}\"\n");
    for value in ["", "4=dev", "100=dev:1 4294967295=main"] {
        assert_eq!(load(&file(&with(value))).unwrap().settings.select_branches, value);
    }
    let expected = "alcid.toml:3: server.select_branches has 3 for the branch \"dev\", and server.databases is 4: \
                    SELECT 3 is a database of the client's own branch; give a number from 4 on";
    assert_eq!(errors(&file(&with("4=main 3=dev:1"))), [expected]);
    let expected = "alcid.toml:3: server.select_branches has 99=dev:77, and server.databases is 4: give a database from \
                    0 to 3";
    assert_eq!(errors(&file(&with("4=main 99=dev:77"))), [expected]);
}

#[test]
fn kubernetes_variables_do_not_stop_a_start() {
    let layers = Layers {
        environment: env(&[
            ("ALCID_PORT", "tcp://10.0.0.1:6379"),
            ("ALCID_PORT_6379_TCP_ADDR", "10.0.0.1"),
            ("ALCID_SERVICE_HOST", "10.0.0.1"),
            ("ALCID_SOMETHING_ELSE_ENTIRELY", "1"),
            ("PATH", "/bin"),
        ]),
        ..Layers::default()
    };
    let loaded = load(&layers).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert_eq!(loaded.warnings.len(), 4, "{:?}", loaded.warnings);
}

#[test]
fn a_public_bind_needs_a_password_or_an_explicit_word() {
    let open = "[server]\nbind_address = \"0.0.0.0\"\n";
    let message = &errors(&file(open))[0];
    assert!(message.starts_with("alcid.toml:2: server.bind_address = \"0.0.0.0\""), "{message}");
    let mut allowed = file(open);
    allowed.flags = vec![("insecure-no-auth", "true".to_owned())];
    assert!(load(&allowed).is_ok());
    let mut guarded = file(open);
    guarded.environment = env(&[("ALCID_SECURITY_PASSWORD", "marker-secret")]);
    let loaded = load(&guarded).unwrap();
    assert_eq!(loaded.settings.requirepass.expose(), "marker-secret");
    assert!(!loaded.show().contains("marker") && !format!("{loaded:?}").contains("marker"));
}

fn get(settings: &Settings, pattern: &str) -> Vec<(String, String)> {
    config_get(settings, &[pattern.as_bytes()])
}

fn set(settings: &mut Settings, pairs: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let pairs: Vec<(&[u8], &[u8])> =
        pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    config_set(settings, &pairs)
        .map(|changed| changed.iter().map(|setting| setting.name()).collect())
        .map_err(|error| error.to_string())
}

fn one(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn config_get_answers_names_globs_and_aliases() {
    let settings = Settings::default();
    assert_eq!(get(&settings, "maxmemory"), one("maxmemory", "0"));
    assert_eq!(get(&settings, "MaxMemory"), one("MaxMemory", "0"));
    assert_eq!(get(&settings, "appendonly"), one("appendonly", "yes"));
    assert_eq!(get(&settings, "save"), one("save", ""));
    assert_eq!(get(&settings, "loglevel"), one("loglevel", "notice"));
    assert_eq!(get(&settings, "databases"), one("databases", "16"));
    assert_eq!(get(&settings, "logging.format"), one("logging.format", "compact"));
    assert_eq!(get(&settings, "hash-max-*entries").len(), 2);
    assert_eq!(get(&settings, "nothing-like-this"), []);
    assert_eq!(
        config_get(&settings, &[b"maxmemory", b"maxmemory*", b"bind"]),
        [
            ("maxmemory".to_owned(), "0".to_owned()),
            ("maxmemory-clients".to_owned(), (4_u64 << 30).to_string()),
            ("maxmemory-policy".to_owned(), "noeviction".to_owned()),
            ("maxmemory-samples".to_owned(), "5".to_owned()),
            ("maxmemory-eviction-tenacity".to_owned(), "10".to_owned()),
            ("bind".to_owned(), "127.0.0.1".to_owned()),
        ]
    );
}

#[test]
fn config_set_changes_and_reports() {
    let mut settings = Settings::default();
    assert_eq!(set(&mut settings, &[("maxmemory", "100mb")]).unwrap(), ["storage.max_memory"]);
    assert_eq!(settings.max_memory, 100 << 20);
    assert_eq!(set(&mut settings, &[("maxmemory", "104857600")]).unwrap(), [""; 0]);
    set(&mut settings, &[("appendfsync", "always"), ("loglevel", "warning")]).unwrap();
    assert_eq!((settings.fsync, settings.logging.level), (Fsync::Always, LogLevel::Warn));
    set(&mut settings, &[("hash-max-ziplist-entries", "7")]).unwrap();
    assert_eq!(get(&settings, "hash-max-listpack-entries"), one("hash-max-listpack-entries", "7"));
    set(&mut settings, &[("client-output-buffer-limit", "pubsub 1mb 0 0")]).unwrap();
    assert_eq!(settings.output_buffer_limits.pubsub.hard_bytes, 1 << 20);
    assert_eq!(settings.output_buffer_limits.replica.hard_bytes, 256 << 20);
    set(&mut settings, &[("notify-keyspace-events", "KEA")]).unwrap();
    assert_eq!(get(&settings, "notify-*"), one("notify-keyspace-events", "AKE"));
    set(&mut settings, &[("save", ""), ("lazyfree-lazy-expire", "no")]).unwrap();
    assert_eq!(get(&settings, "lazyfree-lazy-expire"), one("lazyfree-lazy-expire", "no"));
}

#[test]
fn config_set_refuses_in_rediss_words() {
    let because = |name: &str, reason: &str| {
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")
    };
    for (name, value, expected) in [
        ("foo", "1", "ERR Unknown option or number of arguments for CONFIG SET - 'foo'".to_owned()),
        ("maxmemory", "lots", because("maxmemory", "argument must be a memory value")),
        ("maxclients", "x", because("maxclients", "argument couldn't be parsed into an integer")),
        (
            "timeout",
            "-1",
            because("timeout", "argument must be between 0 and 2147483647 inclusive"),
        ),
        ("appendonly", "maybe", because("appendonly", "argument must be 'yes' or 'no'")),
        (
            "maxmemory-policy",
            "allkeys-mru",
            because(
                "maxmemory-policy",
                "argument(s) must be one of the following: noeviction, tier, allkeys-lru, allkeys-lfu, \
                 allkeys-random, volatile-lru, volatile-lfu, volatile-random, volatile-ttl",
            ),
        ),
        ("daemonize", "yes", because("daemonize", "can't set immutable config")),
        ("dir", "/etc", because("dir", "can't set protected config")),
        ("storage.aof_path", "/etc", because("storage.aof_path", "can't set protected config")),
        (
            "databases",
            "4",
            because("databases", "needs a restart: set server.databases in the config file"),
        ),
        ("port", "1", because("port", "needs a restart: set server.port in the config file")),
        (
            "notify-keyspace-events",
            "Z",
            because(
                "notify-keyspace-events",
                "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.",
            ),
        ),
        ("save", "1", because("save", "Invalid save parameters")),
        (
            "requirepass",
            HIDDEN_SECRET,
            because("requirepass", "'(hidden)' is what CONFIG GET shows instead of a password"),
        ),
    ] {
        let mut settings = Settings::default();
        assert_eq!(set(&mut settings, &[(name, value)]), Err(expected), "{name}");
        assert_eq!(settings, Settings::default(), "{name} changed something");
    }
}

#[test]
fn config_set_is_all_or_nothing() {
    let mut settings = Settings::default();
    let refused = set(&mut settings, &[("maxmemory", "1gb"), ("hz", "0")]);
    assert!(refused.unwrap_err().contains("'hz'"));
    let refused = set(&mut settings, &[("maxmemory", "1gb"), ("maxmemory", "2gb")]);
    assert!(refused.unwrap_err().ends_with("duplicate parameter"));
    // The name is checked before any value, as in Redis.
    let refused = set(&mut settings, &[("maxmemory", "bad"), ("nope", "1")]);
    assert!(refused.unwrap_err().contains("'nope'"));
    assert_eq!(settings, Settings::default());
}

#[test]
fn what_config_get_answers_config_set_accepts() {
    let mut settings = Settings::default();
    for (name, value) in get(&settings.clone(), "*") {
        let row = settings::find(&name).unwrap();
        if matches!(row.change, Change::Live | Change::Restart) {
            assert_eq!(set(&mut settings, &[(&name, &value)]), Ok(vec![]), "{name} {value}");
        }
    }
}

#[test]
fn passwords_are_not_shown_and_not_dropped_on_a_public_bind() {
    let mut settings = Settings { bind: vec!["0.0.0.0".to_owned()], ..Settings::default() };
    set(&mut settings, &[("requirepass", "marker-secret")]).unwrap();
    assert_eq!(get(&settings, "requirepass"), one("requirepass", HIDDEN_SECRET));
    assert!(!format!("{settings:?}").contains("marker"));
    let refused = set(&mut settings, &[("requirepass", "")]).unwrap_err();
    assert!(refused.contains("'requirepass'") && refused.contains("0.0.0.0"), "{refused}");
    assert_eq!(settings.requirepass.expose(), "marker-secret");
}

#[test]
fn writers_do_not_wait_before_the_archive_catches_up() {
    let lag = "[storage]\narchive_lag = \"1GB\"\narchive_lag_max = \"512MB\"\n";
    let errors = errors(&file(lag)).join("\n");
    assert!(errors.contains("archive_lag_max") && errors.contains("536870912"), "{errors}");
    let mut settings = Settings::default();
    let refused =
        set(&mut settings, &[("timeout", "1"), ("storage.archive_lag_max", "1mb")]).unwrap_err();
    assert!(refused.contains("argument 'storage.archive_lag_max'"), "{refused}");
    set(&mut settings, &[("storage.archive_lag_max", "0")]).unwrap();
    assert_eq!(settings.archive_lag_bytes_max, 0);
}

#[test]
fn bare_buffers_are_megabytes_in_the_file() {
    let settings = load(&file("[storage]\nwrite_buffer_size = 512\n")).unwrap().settings;
    assert_eq!(settings.write_buffer_bytes, 512 << 20);
    assert_eq!(get(&settings, "storage.write_buffer_size")[0].1, "536870912");
}

#[test]
fn save_points_need_the_log() {
    let mut settings = Settings::default();
    set(&mut settings, &[("save", "3600 1 300 100")]).unwrap();
    let mut without = Settings { log_enabled: false, ..Settings::default() };
    assert!(set(&mut without, &[("save", "3600 1")]).unwrap_err().contains("the log is off"));
    set(&mut without, &[("save", "")]).unwrap();
}

#[test]
fn rewrite_keeps_comments_and_adds_what_changed() {
    let original = "# mine\n[server] # here\nport = 7001 # because\n\n[logging]\nfile_path = \"a.log\" # old\n";
    let mut settings = load(&file(original)).unwrap().settings;
    assert_eq!(rewrite(original, &settings).unwrap(), original);
    set(&mut settings, &[("maxmemory", "1gb"), ("timeout", "60"), ("maxclients", "5")]).unwrap();
    settings.logging.file = Some("b.log".into());
    settings.port = 7002;
    let written = rewrite(original, &settings).unwrap();
    for part in [
        "# mine\n[server] # here\nport = 7002 # because\n",
        "max_connections = 5\n",
        "timeout = \"60s\"\n",
        "file_path = \"b.log\" # old\n",
        "[storage]\nmax_memory = \"1GB\"\n",
    ] {
        assert!(written.contains(part), "{part:?} in {written}");
    }
    assert_eq!(load(&file(&written)).unwrap().settings, settings);
    assert!(rewrite("port = 1", &settings).is_err());
}

#[test]
fn rewrite_of_an_empty_file_brings_every_setting_back() {
    let mut settings = Settings::default();
    let changes = [
        ("maxmemory", "3"),
        ("appendfsync", "no"),
        ("notify-keyspace-events", "KEA"),
        ("slowlog-log-slower-than", "-1"),
        ("client-output-buffer-limit", "normal 1 2 3"),
        ("requirepass", "a\"b\\c"),
        ("list-max-ziplist-size", "-5"),
    ];
    set(&mut settings, &changes).unwrap();
    let written = rewrite("", &settings).unwrap();
    assert_eq!(load(&file(&written)).unwrap().settings, settings);
}
