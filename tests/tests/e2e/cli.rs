//! The command lines: what they print, what their exit codes say (0 done, 1 broken, 2 misused, 3 refused), and that a mistake changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use e2e::{Behaviour, Caller, Daemon, ITEMS, Lab, LegacyService, Ran, SidecarSetup, WIT, eventually, get, run};

const ALICE: &str = "spiffe://test.example/component/demo/alice";

/// Each of these texts is in `text`.
fn all_in(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

fn sidecar(arguments: &[&str]) -> Ran {
    run("portcullis-sidecar", arguments)
}

const BROKEN_CONFIG: &str = r#"[node]
stat = "state"
[component]
lattice = "de mo"
id = "vc"
[listen]
quic = "here"
[upstream.http]
url = 7
timeout = "5 parsecs"
[limits]
calls = 0
[admin]
listen = "10.0.0.1:80"
[extra]
"#;

#[test]
fn check_lists_every_mistake_of_a_configuration_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "broken.toml", BROKEN_CONFIG);
    let config = path.to_str().unwrap();
    let ran = sidecar(&["check", "--config", config]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{ran:?}");
    let mistakes = [
        (1, "`node.state` is missing"),
        (2, "`node.stat` is not known here (hint: did you mean `state`?)"),
        (4, "`component.lattice`"),
        (5, "`component.id`"),
        (7, "`listen.quic`"),
        (9, "`upstream.http.url` is integer, not a string"),
        (10, "`upstream.http.timeout`"),
        (12, "`limits.calls` is integer, not a number from 1 to"),
        (14, "`admin.listen`: `10.0.0.1:80` is not a loopback address: use 127.0.0.1:PORT or unix:PATH"),
        (15, "`extra` is not known here"),
    ];
    for (line, message) in mistakes {
        all_in(&ran.err, &[&format!("{config}:{line}: {message}")]);
    }
    all_in(&ran.err, &[&format!("refused: {} mistakes", mistakes.len())]);

    let ran = sidecar(&["check", "--config", config, "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""), "{ran:?}");
    let json = ran.json();
    let lines: BTreeSet<_> = json["mistakes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mistake| (mistake["file"].as_str().unwrap(), mistake["line"].as_u64().unwrap()))
        .collect();
    assert_eq!(lines, mistakes.map(|(line, _)| (config, line)).into());
}

#[test]
fn a_broken_configuration_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "broken.toml", BROKEN_CONFIG);
    let ran = sidecar(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{ran:?}");
    all_in(&ran.err, &[":2: ", ":15: ", "has 10 mistakes"]);
    let syntax = write(folder.path(), "syntax.toml", "[node\nstate = \n");
    let ran = sidecar(&["run", "--config", syntax.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{ran:?}");
    all_in(&ran.err, &["syntax.toml:1: "]);
    let missing = folder.path().join("missing.toml");
    let ran = sidecar(&["run", "--config", missing.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{ran:?}");
    all_in(&ran.err, &["missing.toml: cannot be read"]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_broken_broker_configuration_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let text = "trust_domain = 'A.test'\nlisten = 'here'\nnode_ttl = '3s'\n";
    let path = write(folder.path(), "broker.toml", text);
    let arguments = ["run", "--config", path.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let ran = run("portcullis-broker", &arguments);
    assert_eq!(ran.code, 2, "{ran:?}");
    all_in(&ran.err, &["A.test", "listen: ", "node_ttl: "]);
    assert!(!data.exists());
}

#[test]
fn check_lists_the_mistakes_of_every_file_that_a_configuration_names() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    let config = "[node]\nstate = \"state\"\njoin_token_file = \"token\"\n[component]\nlattice = \"demo\"\nid = \"shop\"\nwit = \"wit\"\n\
        policies = [\"a.cedar\", \"b.cedar\", \"gone.cedar\"]\n[listen]\nquic = \"127.0.0.1:0\"\n\
        [upstream.http]\nurl = \"http://127.0.0.1:1\"\nmapping = \"mapping.toml\"\n";
    let path = write(base, "shop.toml", config);
    write(base, "token", "hunter2");
    write(base, "wit/shop.wit", WIT);
    let mapping = format!(
        "[[route]]\nfunction = \"{ITEMS}#get\"\npath = \"/items/{{id}}/{{nonsense}}\"\n\n[[route]]\nfunction = \"{ITEMS}#no-such\"\n\n\
         [[route]]\nfunction = \"{ITEMS}#count\"\nmethod = \"G E T\"\n"
    );
    write(base, "mapping.toml", &mapping);
    let policies = format!(
        "permit (principal, action == Action::\"{ITEMS}#gte\", resource);\n\
         permit (principal, action == Action::\"{ITEMS}#get\", resource) when {{ context.params.price > 3 }};\n"
    );
    write(base, "a.cedar", &policies);
    write(base, "b.cedar", "permit (principal,\n  action resource);\n");
    let ran = sidecar(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{ran:?}");
    all_in(
        &ran.err,
        &[
            "token: ",
            "not a join token",
            "mapping.toml:3: ",
            "nonsense",
            "mapping.toml:6: ",
            "no-such",
            "mapping.toml:10: ",
            "a.cedar:1: ",
            "did you mean",
            "a.cedar:2: ",
            "price",
            "b.cedar:2: ",
            "gone.cedar: ",
        ],
    );
    assert!(!ran.err.contains("hunter2"));
    // A WIT that does not parse hides what is built upon it, and nothing else.
    write(base, "wit/shop.wit", "package test:shop@1.0.0;\ninterface items { get: func( }\n");
    let ran = sidecar(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{ran:?}");
    all_in(&ran.err, &["wit/shop.wit:2: ", "not a join token"]);

    // Mended, it is in order.
    write(base, "wit/shop.wit", WIT);
    write(base, "mapping.toml", "");
    std::fs::remove_file(base.join("token")).unwrap();
    write(base, "a.cedar", &format!("permit (principal, action == Action::\"{ITEMS}#get\", resource);\n"));
    write(base, "b.cedar", "");
    write(base, "gone.cedar", "");
    let ran = sidecar(&["check", "--config", path.to_str().unwrap()]).ok();
    all_in(&ran.out, &["demo/shop: 1 interfaces, 4 functions, 1 policies: no mistakes"]);
}

/// Alice may read the shop; her node's folder is what commands borrow.
struct Shop {
    alice: Caller,
    _sidecar: Daemon,
    service: LegacyService,
    lab: Lab,
}

impl Shop {
    fn open() -> Self {
        let lab = Lab::start();
        let service = LegacyService::start(Behaviour::Answer(200, r#"{"id":"7","price":100}"#.to_owned()));
        let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address));
        let text = format!(
            "@id(\"alice-reads\")\npermit (principal == Workload::\"{ALICE}\", action == Action::\"{ITEMS}#get\", resource);\n\
             @id(\"no-puts\") @advice(\"the shop is read only\")\nforbid (principal, action == Action::\"{ITEMS}#put\", resource);\n"
        );
        lab.policy("shop.cedar", &text);
        let alice = lab.caller("alice");
        Self { alice, _sidecar: sidecar, service, lab }
    }

    fn invoke(&self, arguments: &[&str]) -> Ran {
        let state = self.lab.path().join("alice-state");
        let common = ["invoke", "--state", state.to_str().unwrap(), "demo/shop"];
        sidecar(&[&common, arguments].concat())
    }

    fn explain(&self, function: &str, more: &[&str]) -> Ran {
        let common = ["explain", ALICE, "demo/shop", function];
        self.lab.broker_command(&[&common, more].concat())
    }
}

#[test]
fn a_broken_policy_changes_nothing_and_every_mistake_is_listed() {
    let shop = Shop::open();
    let lab = &shop.lab;
    let good = write(lab.path(), "good.cedar", "@id(\"extra\") permit (principal, action, resource);\n");
    let text = format!(
        "@id(\"typo\")\npermit (principal, action == Action::\"{ITEMS}#gte\", resource);\n\
         permit (principal == Workload::\"nonsense\", action, resource);\n"
    );
    let broken = write(lab.path(), "broken.cedar", &text);
    let syntax = write(lab.path(), "syntax.cedar", "permit (principal, action resource);\n");
    let files = [&good, &broken, &syntax].map(|path| path.to_str().unwrap());
    let before = lab.broker_command(&["policy", "list", "--json"]).ok().json();
    let version = lab.broker_command(&["status", "--json"]).ok().json()["version"].clone();
    for command in ["put", "check"] {
        let ran = lab.broker_command(&[&["policy", command], &files[..]].concat());
        assert_eq!(ran.code, 3, "{ran:?}");
        all_in(
            &ran.out,
            &["broken.cedar:2:", "`typo`", "did you mean", "broken.cedar:3:", "nonsense", "syntax.cedar:1:"],
        );
        all_in(&ran.err, &["3 mistakes"]);
        let ran = lab.broker_command(&[&["policy", command, "--json"], &files[..]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (3, ""), "{ran:?}");
        let json = ran.json();
        let places: Vec<_> = json["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|problem| (problem["file"].as_str().unwrap(), problem["line"].as_u64().unwrap()))
            .collect();
        assert_eq!(places, [("broken.cedar", 2), ("broken.cedar", 3), ("syntax.cedar", 1)]);
    }
    assert_eq!(lab.broker_command(&["policy", "list", "--json"]).ok().json(), before);
    assert_eq!(lab.broker_command(&["status", "--json"]).ok().json()["version"], version);
    // Not even the good one among them is in force.
    assert_eq!(shop.invoke(&["count"]).code, 3);
    lab.broker_command(&["policy", "put", files[0]]).ok();
    shop.service.behave(Behaviour::Answer(200, "3".to_owned()));
    eventually("the good one to be in force", || (shop.invoke(&["count"]).code == 0).then_some(()));
    let gone = lab.broker_command(&["policy", "put", "/no/such.cedar"]);
    assert_eq!(gone.code, 1, "{gone:?}");
}

#[test]
fn invoke_prints_json_and_says_who_refused_and_why() {
    let shop = Shop::open();
    let answered =
        eventually("the policy", || Some(shop.invoke(&["get", r#"{"id":"7"}"#])).filter(|ran| ran.code == 0));
    assert_eq!(answered.json(), serde_json::json!({ "ok": { "id": "7", "price": 100 } }));
    // By position, by the full name, wrapped for programs.
    let full = format!("{ITEMS}#get");
    let wrapped = shop.invoke(&[&full, r#"["7"]"#, "--json"]).ok().json();
    assert_eq!(wrapped["result"]["ok"]["price"], 100);
    assert_eq!(shop.service.seen().last().unwrap().header("x-caller"), Some(ALICE));

    let denied = shop.invoke(&["put", r#"{"item":{"id":"7","price":1}}"#]);
    assert_eq!((denied.code, denied.out.as_str()), (3, ""), "{denied:?}");
    all_in(&denied.err, &["refused: demo/shop refused the call (denied)", "`no-puts` (the shop is read only)"]);
    let denied = shop.invoke(&["put", r#"{"item":{"id":"7","price":1}}"#, "--json"]);
    assert_eq!(denied.code, 3, "{denied:?}");
    let told = &denied.json()["refused"];
    assert_eq!((&told["by"], &told["refusal"]), (&"demo/shop".into(), &"denied".into()));
    assert_eq!(told["policies"], serde_json::json!(["no-puts"]));

    // Broken is not refused.
    for (arguments, word) in [
        (["get", r#"{"id":7}"#], "the arguments do not fit"),
        (["get", r#"{"di":"7"}"#], "the arguments do not fit"),
        (["no-such", "{}"], "is not served; there are: "),
    ] {
        let ran = shop.invoke(&arguments);
        assert_eq!(ran.code, 1, "{ran:?}");
        all_in(&ran.err, &["error: ", word]);
    }
    let state = shop.lab.path().join("alice-state");
    let state = state.to_str().unwrap();
    let ran = sidecar(&["invoke", "--state", state, "demo/no-such", "get"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    all_in(&ran.err, &["demo/no-such"]);
    let ran = sidecar(&["invoke", "--state", "/no/such/folder", "demo/shop", "get"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(sidecar(&["invoke", "demo/shop", "get"]).code, 2);
    assert_eq!(shop.alice.identity.id().to_string(), ALICE);
}

#[test]
fn status_and_the_admin_socket_show_how_a_sidecar_is() {
    let mut shop = Shop::open();
    let lab = &mut shop.lab;
    let config = lab.path().join("shop.toml");
    let config = config.to_str().unwrap().to_owned();
    let shown = sidecar(&["status", "--config", &config]).ok();
    all_in(
        &shown.out,
        &[
            "component  demo/shop",
            "ready      yes",
            "spiffe://test.example/virtual/demo/shop",
            "spiffe://test.example/portcullis/node/shop",
            "(connected)",
            "unsealed",
        ],
    );
    let json = sidecar(&["status", "--config", &config, "--json"]).ok().json();
    assert_eq!((&json["ready"], &json["broker_connected"]), (&true.into(), &true.into()));
    let socket = lab.admin_socket("shop");
    let name = format!("unix:{}", socket.display());
    assert_eq!(sidecar(&["status", "--admin", &name, "--json"]).ok().json()["component"], "demo/shop");
    assert_eq!(get(&socket, "/live").unwrap(), (200, "live\n".to_owned()));
    assert_eq!(get(&socket, "/ready").unwrap(), (200, "ready\n".to_owned()));
    assert_eq!(get(&socket, "/else").unwrap().0, 404);
    let (code, metrics) = get(&socket, "/metrics").unwrap();
    assert_eq!(code, 200);
    all_in(
        &metrics,
        &["portcullis_ready 1\n", "portcullis_broker_connected 1\n", "portcullis_calls_refused_total", "# EOF"],
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    lab.broker().kill();
    let away = eventually("the sidecar to miss the broker", || {
        Some(sidecar(&["status", "--config", &config])).filter(|ran| ran.out.contains("(away: "))
    });
    // It serves on what it holds.
    all_in(&away.ok().out, &["ready      yes"]);
    let stopped = sidecar(&["status", "--admin", "unix:/no/such.sock"]);
    assert_eq!(stopped.code, 1, "{stopped:?}");
    all_in(&stopped.err, &["error: ", "is the sidecar running?"]);
}

#[test]
fn explain_says_what_a_call_would_get() {
    let shop = Shop::open();
    let get = format!("{ITEMS}#get");
    let allowed = shop.explain(&get, &[]).ok();
    all_in(&allowed.out, &["alice-reads"]);
    let put = format!("{ITEMS}#put");
    let denied = shop.explain(&put, &[]);
    assert_eq!(denied.code, 3, "{denied:?}");
    all_in(&denied.out, &["no-puts"]);
    let denied = shop.explain(&put, &["--json"]);
    assert_eq!(denied.code, 3, "{denied:?}");
    let json = denied.json();
    assert_eq!(json["allowed"], false);
    assert_eq!(json["reasons"][0]["policy"], "no-puts");
    assert_eq!(json["reasons"][0]["advice"], "the shop is read only");
    assert_eq!(shop.explain(&get, &["--json"]).ok().json()["allowed"], true);
    // A function that is not there is refused, a wrong spelling is misuse, a broker that is not there is broken.
    assert_eq!(shop.explain(&format!("{ITEMS}#gte"), &[]).code, 3);
    assert_eq!(shop.explain("get", &[]).code, 2);
    let nowhere = ["explain", ALICE, "demo/shop", &get, "--socket", "/no/such.sock"];
    let ran = run("portcullis-broker", &nowhere);
    assert_eq!(ran.code, 1, "{ran:?}");
    all_in(&ran.err, &["error: ", "/no/such.sock"]);
}

/// Asks a command and everything below it for help; returns their names.
fn helped(program: &str, path: &[&str], names: &mut Vec<String>) {
    let ran = run(program, &[path, &["--help"]].concat());
    let name = [&[program], path].concat().join(" ");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{name}: {ran:?}");
    assert!(ran.out.contains("Usage: "), "{name}: {}", ran.out);
    names.push(name);
    let commands = ran.out.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in commands.take_while(|line| line.starts_with("  ")) {
        let Some(command) = line.strip_prefix("  ").and_then(|line| line.split_whitespace().next()) else {
            continue;
        };
        // Lines that continue a description are indented further.
        if line.starts_with("   ") || command == "help" {
            continue;
        }
        helped(program, &[path, &[command]].concat(), names);
    }
}

#[test]
fn every_command_has_help() {
    let mut names = Vec::new();
    for program in ["portcullis-broker", "portcullis-sidecar", "portcullis-host"] {
        helped(program, &[], &mut names);
        let ran = run(program, &["--version"]).ok();
        assert!(ran.out.starts_with(program), "{ran:?}");
        assert_eq!(run(program, &["no-such-command"]).code, 2, "{program}");
    }
    for name in [
        "portcullis-broker run",
        "portcullis-broker component register",
        "portcullis-broker entry create",
        "portcullis-broker token create",
        "portcullis-broker policy put",
        "portcullis-broker policy check",
        "portcullis-broker explain",
        "portcullis-broker nodes remove",
        "portcullis-sidecar run",
        "portcullis-sidecar check",
        "portcullis-sidecar invoke",
        "portcullis-sidecar status",
        "portcullis-host run",
    ] {
        assert!(names.iter().any(|known| known == name), "{name} is not among {names:?}");
    }
}

#[test]
fn what_new_http_writes_passes_check_and_serves_the_sample() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, r#"{"id":"42","total":100}"#.to_owned()));
    let samples = write(
        lab.path(),
        "samples.txt",
        "GET /api/v1/invoices/42?full=true -> 200 {\"id\":\"42\",\"total\":100}\n\
         POST /api/v1/invoices {\"customer\":\"acme\"} -> 201 {\"id\":\"43\",\"total\":0}\n",
    );
    let folder = lab.path().join("billing");
    let url = format!("http://{}", service.address);
    let arguments = [
        "new",
        "http",
        "--package",
        "acme:billing@1.0.0",
        "--interface",
        "invoices",
        "--url",
        &url,
        "--samples",
        samples.to_str().unwrap(),
        folder.to_str().unwrap(),
        "--json",
    ];
    let made = sidecar(&arguments).ok().json();
    assert_eq!(made["instance"], "acme:billing/invoices@1.0.0");
    assert_eq!(made["functions"].as_array().unwrap().len(), 2, "{made}");
    let config = folder.join("sidecar.toml");
    let checked = sidecar(&["check", "--config", config.to_str().unwrap()]).ok();
    all_in(&checked.out, &["default/billing: 1 interfaces, 2 functions", "no mistakes"]);
    // Nothing that a person may have changed is written over.
    std::fs::write(&config, "mended").unwrap();
    let again = sidecar(&arguments);
    assert_eq!(again.code, 1, "{again:?}");
    all_in(&again.err, &["is there already; nothing was written"]);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "mended");

    std::fs::remove_dir_all(&folder).unwrap();
    sidecar(&arguments).ok();
    // A port and a lattice of this lab.
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("127.0.0.1:7443", "127.0.0.1:0").replace("\"default\"", "\"demo\"");
    std::fs::write(&config, text).unwrap();
    let wit = folder.join("wit");
    lab.broker_command(&["component", "register", "demo/billing", "--wit", wit.to_str().unwrap(), "--node", "billing"])
        .ok();
    let token = folder.join("join.token");
    lab.broker_command(&["token", "create", "--node", "billing", "--out", token.to_str().unwrap()]).ok();
    let _sidecar = lab.start_sidecar("billing", &config);
    let alice = lab.caller("alice");
    lab.record(&alice, "billing");
    let state = lab.path().join("alice-state");
    let function = made["functions"][0].as_str().unwrap();
    let ran =
        sidecar(&["invoke", "--state", state.to_str().unwrap(), "demo/billing", function, r#"["42", true]"#]).ok();
    assert_eq!(ran.json(), serde_json::json!({ "ok": { "id": "42", "total": 100 } }));
    let seen = service.seen().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/api/v1/invoices/42?full=true"));

    let nowhere = lab.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let wrong = sidecar(&[
        "new",
        "http",
        "--package",
        "Acme",
        "--interface",
        "invoices",
        "--samples",
        samples.to_str().unwrap(),
        nowhere,
    ]);
    assert_eq!(wrong.code, 3, "{wrong:?}");
    let nonsense = write(lab.path(), "nonsense.txt", "GET /items -> 200 {}\nGET the invoice please\n");
    let arguments =
        ["new", "http", "--package", "a:b@1.0.0", "--interface", "c", "--samples", nonsense.to_str().unwrap(), nowhere];
    let wrong = sidecar(&arguments);
    assert_ne!(wrong.code, 0);
    all_in(&wrong.err, &["line 2: "]);
    assert!(!Path::new(nowhere).exists());
}

#[test]
fn the_broker_has_pages_for_those_who_watch_it() {
    let mut lab = Lab::start();
    let _alice = lab.caller("alice");
    let pages = lab.broker_data().join("admin.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&pages).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(lab.broker().ready["admin"], format!("unix:{}", pages.display()));
    assert_eq!(get(&pages, "/live").unwrap(), (200, "live\n".to_owned()));
    assert_eq!(get(&pages, "/ready").unwrap(), (200, "ready\n".to_owned()));
    assert_eq!(get(&pages, "/else").unwrap().0, 404);
    let status: serde_json::Value = serde_json::from_str(&get(&pages, "/status").unwrap().1).unwrap();
    assert_eq!((&status["trust_domain"], &status["ready"]), (&"test.example".into(), &true.into()), "{status}");
    let metrics = get(&pages, "/metrics").unwrap().1;
    all_in(
        &metrics,
        &[
            "portcullis_broker_ready 1\n",
            "portcullis_broker_nodes_connected 1\n",
            "portcullis_broker_entries 1\n",
            "portcullis_broker_events_total{what=\"x509-issued\"} 2\n",
            "portcullis_broker_root_expires_in_seconds ",
            "# EOF",
        ],
    );
    // Nobody else's machine looks at them.
    let data = lab.path().join("other");
    let run = |admin: &str| {
        let data = data.to_str().unwrap();
        e2e::run("portcullis-broker", &["run", "--trust-domain", "a.test", "--data", data, "--admin", admin])
    };
    let refused = run("0.0.0.0:9440");
    assert!(refused.code != 0 && refused.err.contains("not a loopback address"), "{refused:?}");
    let taken = run(&format!("unix:{}", pages.display()));
    assert!(taken.code != 0 && taken.err.contains("another process serves it"), "{taken:?}");
    lab.broker().terminate();
    lab.broker().wait();
    assert!(!pages.exists());
}
