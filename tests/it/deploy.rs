//! What is in deploy/, held against the program and the disk: commands parse, variables are those of
//! flags, files that are named are there, and what one file makes the other one uses.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::Path,
    process::Command,
};

use clap::CommandFactory;
use springtide::cli::{self, Cli};
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::PROGRAM;

/// Variables that are no flag's: secrets, and what is logged.
const OTHERS: [&str; 6] = [
    "SPRINGTIDE_LOG",
    "SPRINGTIDE_PASSWORD",
    "SPRINGTIDE_PLANE_PASSWORD",
    "SPRINGTIDE_PLANE_SECRET",
    "SPRINGTIDE_REDIS_PASSWORD",
    "SPRINGTIDE_TAP_TOKEN",
];

/// Where the image has what deploy/plane has here.
const IN_IMAGE: &str = "/usr/local/share/springtide/plane";

type Env = BTreeMap<String, String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Parses what is typed and what is set as if all of it was typed.
#[track_caller]
fn typed(args: &[String], env: &Env) -> Cli {
    let root = Cli::command();
    let name = args.first().expect("a command");
    let command = root.find_subcommand(name).unwrap_or_else(|| panic!("no command {name}"));
    let mut all = vec!["springtide".to_owned()];
    all.extend(args.iter().cloned());
    for (variable, value) in env.iter().filter(|(v, _)| v.starts_with("SPRINGTIDE_")) {
        if OTHERS.contains(&variable.as_str()) {
            continue;
        }
        let flag = command.get_arguments().find(|a| a.get_env().is_some_and(|e| e == variable.as_str()));
        let flag = flag.unwrap_or_else(|| panic!("springtide {name} knows no {variable}"));
        all.extend([format!("--{}", flag.get_long().unwrap()), value.clone()]);
    }
    let parsed = cli::parse(all.iter().map(OsString::from), None);
    parsed.unwrap_or_else(|e| panic!("{all:?}: {e}"))
}

/// Settings of a unit, in their order; several values of one name are kept.
fn unit(path: &str) -> Vec<(String, String)> {
    let text = text(path).replace("\\\n", " ");
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with(['#', '[']));
    lines
        .map(|l| l.split_once('=').unwrap_or_else(|| panic!("{path}: {l}")))
        .map(|(k, v)| (k.to_owned(), v.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

fn setting<'a>(unit: &'a [(String, String)], name: &str) -> Option<&'a str> {
    unit.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// Settings of an environment file; those that are commented out too.
fn environment(path: &str) -> Env {
    let text = text(path);
    let set = text
        .lines()
        .map(|l| l.strip_prefix("#SPRINGTIDE_").map_or(l.to_owned(), |l| format!("SPRINGTIDE_{l}")));
    let set = set.filter(|l| !l.is_empty() && !l.starts_with('#'));
    set.map(|l| l.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap()).collect()
}

#[test]
fn the_services_start_what_there_is() {
    for command in ["worker", "manager"] {
        let unit = unit(&format!("deploy/systemd/springtide-{command}.service"));
        let line = setting(&unit, "ExecStart").unwrap();
        let line = line.strip_prefix("/usr/local/bin/springtide ").unwrap();
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(args[0], command);
        let mut env = environment(&format!("deploy/systemd/{command}.env.example"));
        assert_eq!(
            setting(&unit, "EnvironmentFile"),
            Some(format!("/etc/springtide/{command}.env").as_str())
        );
        assert!(env["SPRINGTIDE_PLANE"].starts_with(&format!("rediss://springtide-{command}@")));
        // Said in the unit, so not to be said twice.
        for flag in args.iter().filter_map(|a| a.strip_prefix("--")) {
            let twin = format!("SPRINGTIDE_{}", flag.replace('-', "_").to_uppercase());
            assert!(env.remove(&twin).is_none(), "{twin}");
        }
        let filled = args.iter().map(|a| {
            let a = a
                .replace("%H", "w1.example")
                .replace("%S/", "/var/lib/")
                .replace("%d/", "/run/credentials/u/");
            assert!(!a.contains('%'), "{a}");
            a
        });
        typed(&filled.collect::<Vec<_>>(), &env);
        // Every credential that is used is loaded, and the other way round.
        let used: BTreeSet<&str> = args.iter().filter_map(|a| a.strip_prefix("%d/")).collect();
        let loaded: BTreeSet<&str> = unit
            .iter()
            .filter(|(name, _)| name == "LoadCredential")
            .map(|(_, value)| value.split_once(":/etc/springtide/").unwrap().0)
            .collect();
        assert_eq!(used, loaded);
        assert_eq!(setting(&unit, "StateDirectory"), Some(format!("springtide-{command}").as_str()));
        assert_eq!(setting(&unit, "KillSignal"), Some("SIGTERM"));
        // Nothing but 0 is a success.
        assert_eq!(setting(&unit, "SuccessExitStatus"), None);
        let installed = text("deploy/README.md");
        let install = |file: &str| assert!(installed.contains(&format!("deploy/systemd/{file}")), "{file}");
        install(&format!("springtide-{command}.service"));
        install(&format!("{command}.env.example"));
    }
    let worker = unit("deploy/systemd/springtide-worker.service");
    assert_eq!(setting(&worker, "Restart"), Some("on-failure"));
    assert_eq!(setting(&worker, "RestartPreventExitStatus"), Some("2"));
    let manager = unit("deploy/systemd/springtide-manager.service");
    assert_eq!(setting(&manager, "Type"), Some("oneshot"));
    assert_eq!(setting(&manager, "Restart"), None);
    let timer = unit("deploy/systemd/springtide-manager.timer");
    assert_eq!(setting(&timer, "Persistent"), Some("yes"));
    assert!(setting(&timer, "RandomizedDelaySec").is_some());
}

/// Where systemd is, it reads the units.
#[test]
fn systemd_takes_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for unit in ["springtide-worker.service", "springtide-manager.service", "springtide-manager.timer"] {
        let path = folder.path().join(unit);
        // It looks whether the program is there.
        let text = text(&format!("deploy/systemd/{unit}")).replace("/usr/local/bin/springtide", PROGRAM);
        fs::write(&path, text).unwrap();
        units.push(path);
    }
    let Ok(said) = Command::new("systemd-analyze").arg("verify").args(&units).output() else {
        eprintln!("systemd-analyze is not here: not verified");
        return;
    };
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    // Other units of the machine may be odd; ours are named by their folder or their name.
    let ours: Vec<&str> = words.lines().filter(|l| l.contains("springtide")).collect();
    assert!(said.status.success() && ours.is_empty(), "{words}");
}

#[test]
fn the_guide_names_what_there_is() {
    let guide = text("deploy/README.md");
    let mut seen = 0;
    for line in guide.lines().filter_map(|l| l.strip_prefix("    springtide ")) {
        let args: Vec<OsString> = ["springtide"].into_iter().chain(line.split(' ')).map(Into::into).collect();
        cli::parse(args, None).unwrap_or_else(|e| panic!("{line}: {e}"));
        seen += 1;
    }
    assert!(seen > 0);
    let files = [
        guide.as_str(),
        &text("README.md"),
        &text("deploy/kubernetes/springtide.yaml"),
        &text(".dockerignore"),
    ];
    for word in files.iter().flat_map(|t| t.split(|c: char| c.is_whitespace() || "`(),\"".contains(c))) {
        let path = word.trim_start_matches('!').trim_end_matches(['.', ':', ';']);
        if path.starts_with("deploy/") {
            assert!(root().join(path).exists(), "{path}");
        }
    }
    // Those in the first table are named by their folder here.
    for row in guide.lines().skip_while(|l| !l.starts_with("|---")).skip(1).take_while(|l| l.starts_with('|'))
    {
        for path in row.split('`').skip(1).step_by(2) {
            assert!(root().join("deploy").join(path).exists(), "{path}");
        }
    }
}

/// With what `<<` says put in its place.
fn merged(yaml: &Yaml) -> Yaml {
    match yaml {
        Yaml::Array(all) => Yaml::Array(all.iter().map(merged).collect()),
        Yaml::Hash(all) => {
            let own = all.iter().filter(|(k, _)| k.as_str() != Some("<<"));
            let mut whole: yaml_rust2::yaml::Hash = own.map(|(k, v)| (k.clone(), merged(v))).collect();
            for (_, base) in all.iter().filter(|(k, _)| k.as_str() == Some("<<")) {
                for (k, v) in merged(base).as_hash().unwrap() {
                    if !whole.contains_key(k) {
                        whole.insert(k.clone(), v.clone());
                    }
                }
            }
            Yaml::Hash(whole)
        }
        other => other.clone(),
    }
}

fn yaml(path: &str) -> Vec<Yaml> {
    let all = YamlLoader::load_from_str(&text(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    all.iter().map(merged).collect()
}

#[track_caller]
fn string(yaml: &Yaml) -> &str {
    yaml.as_str().unwrap_or_else(|| panic!("no text: {yaml:?}"))
}

fn strings(yaml: &Yaml) -> Vec<String> {
    yaml.as_vec().into_iter().flatten().map(|s| string(s).to_owned()).collect()
}

fn pairs(yaml: &Yaml) -> impl Iterator<Item = (&str, &Yaml)> {
    yaml.as_hash().into_iter().flatten().map(|(k, v)| (string(k), v))
}

/// The files that `prepare.sh` makes, as its guide lists them.
fn prepared() -> BTreeSet<String> {
    let guide = text("deploy/README.md");
    let table = guide.lines().skip_while(|l| !l.starts_with("| file | what it is")).skip(2);
    let first = table.take_while(|l| l.starts_with('|')).map(|row| row.split('|').nth(1).unwrap().to_owned());
    first.flat_map(|c| c.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_image_has_what_the_program_is_made_of() {
    let (dockerfile, ignored) = (text("deploy/Dockerfile"), text(".dockerignore"));
    let sent: Vec<&str> = ignored.lines().filter_map(|l| l.strip_prefix('!')).collect();
    let mut copied = BTreeSet::new();
    for line in
        dockerfile.lines().filter_map(|l| l.strip_prefix("COPY ")).filter(|l| !l.starts_with("--from"))
    {
        let words: Vec<&str> = line.split(' ').collect();
        copied.extend(words[..words.len() - 1].iter().copied());
    }
    assert_eq!(copied, sent.iter().copied().collect());
    for path in &copied {
        assert!(root().join(path).exists(), "{path}");
    }
    assert!(dockerfile.contains(&format!("COPY deploy/plane {IN_IMAGE}\n")));
    // What build.rs looks at, and what the sources take in.
    for path in text("build.rs").split('"').filter(|p| root().join(p).exists() && !p.starts_with('.')) {
        assert!(copied.contains(path), "build.rs: {path}");
    }
    assert!(text("build.rs").contains("SPRINGTIDE_BUILD_REVISION"));
    for flag in
        dockerfile.lines().chain(text("deploy/README.md").lines()).filter(|l| l.contains("--build-arg"))
    {
        assert!(flag.contains("--build-arg REVISION="), "{flag}");
    }
}

#[test]
fn the_compose_file_fits_together() {
    let all = yaml("deploy/compose.yaml");
    let file = &all[0];
    let services: BTreeMap<&str, &Yaml> = pairs(&file["services"]).collect();
    let volumes: BTreeSet<&str> = pairs(&file["volumes"]).map(|(name, _)| name).collect();
    let mut commands = Vec::new();
    for (name, service) in &services {
        for other in pairs(&service["depends_on"]).map(|(other, _)| other) {
            assert!(services.contains_key(other), "{name}: {other}");
        }
        for mount in strings(&service["volumes"]) {
            assert!(volumes.contains(mount.split(':').next().unwrap()), "{name}: {mount}");
        }
        let env: Env =
            pairs(&service["environment"]).map(|(k, v)| (k.to_owned(), string(v).to_owned())).collect();
        for file in env.values().filter_map(|v| v.strip_prefix("/plane/keys/")) {
            assert!(prepared().contains(file), "{name}: {file}");
        }
        let words = strings(&service["command"]);
        if string(&service["image"]).starts_with("springtide:") {
            assert_eq!(string(&service["image"]), image());
            assert_eq!(string(&service["build"]["dockerfile"]), "deploy/Dockerfile");
            if service["entrypoint"].is_badvalue() {
                typed(&words, &env);
                commands.push(words[0].clone());
            } else {
                assert!(words[0].contains(&format!("{IN_IMAGE}/prepare.sh")), "{words:?}");
            }
        }
    }
    commands.sort();
    assert_eq!(commands, ["backend", "manager", "worker", "worker", "worker"]);
    assert_eq!(string(&services["manager"]["environment"]["SPRINGTIDE_EXPECT_WORKERS"]), "3");
    assert!(
        root()
            .join("deploy")
            .join(string(&services["manager"]["build"]["context"]))
            .join("Cargo.toml")
            .exists()
    );
}

/// The image's name with this version.
fn image() -> String {
    format!("springtide:{}", env!("CARGO_PKG_VERSION"))
}

/// Directives of a Redis configuration, without comments.
fn directives(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect()
}

/// What the secrets are made of, by the commands in the head of the manifest: name and files.
fn secrets(head: &str) -> BTreeMap<String, BTreeSet<String>> {
    let head: String = head.lines().filter_map(|l| l.strip_prefix('#')).map(|l| format!("{l}\n")).collect();
    let head = head.replace("\\\n", " ");
    let mut all = BTreeMap::new();
    for line in head.lines().filter(|l| l.contains("create secret generic ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words[words.iter().position(|w| *w == "generic").unwrap() + 1];
        let files = words.iter().filter_map(|w| w.strip_prefix("--from-file="));
        let files = files.map(|path| match path.strip_prefix("plane/") {
            Some(file) if prepared().contains(file) => file.to_owned(),
            Some(file) => panic!("prepare.sh makes no {file}"),
            None => path.to_owned(),
        });
        all.insert(name.to_owned(), files.collect());
    }
    all
}

#[test]
fn the_manifest_fits_together() {
    let all = yaml("deploy/kubernetes/springtide.yaml");
    let by_kind = |kind: &str| {
        all.iter().find(|d| d["kind"].as_str() == Some(kind)).unwrap_or_else(|| panic!("{kind}"))
    };
    let secrets = secrets(&text("deploy/kubernetes/springtide.yaml"));
    for document in all.iter().filter(|d| d["kind"].as_str() != Some("Namespace")) {
        assert_eq!(string(&document["metadata"]["namespace"]), "springtide");
    }

    let configuration = directives(string(&by_kind("ConfigMap")["data"]["redis.conf"]));
    let shipped = directives(&text("deploy/plane/redis.conf").replace("/var/lib/redis/plane", "/data"));
    assert_eq!(configuration, shipped);

    let worker = &by_kind("Deployment")["spec"];
    let plane = &by_kind("StatefulSet")["spec"];
    let cron = &by_kind("CronJob")["spec"];
    let manager = &cron["jobTemplate"]["spec"];
    for (name, pod) in
        [("worker", &worker["template"]), ("plane", &plane["template"]), ("manager", &manager["template"])]
    {
        let container = &pod["spec"]["containers"][0];
        let mut volumes: BTreeMap<&str, &Yaml> =
            pod["spec"]["volumes"].as_vec().unwrap().iter().map(|v| (string(&v["name"]), v)).collect();
        let claims = plane["volumeClaimTemplates"].as_vec().unwrap().iter();
        volumes.extend(claims.filter(|_| name == "plane").map(|c| (string(&c["metadata"]["name"]), c)));
        let mounts: BTreeMap<&str, &Yaml> = container["volumeMounts"]
            .as_vec()
            .unwrap()
            .iter()
            .map(|m| (string(&m["mountPath"]), volumes[string(&m["name"])]))
            .collect();
        assert_eq!(mounts.len(), volumes.len(), "{name}: a volume that nobody mounts");
        // A file in a secret is one that the secret is made of.
        let env: Env = container["env"]
            .as_vec()
            .into_iter()
            .flatten()
            .map(|e| {
                (string(&e["name"]).to_owned(), e["value"].as_str().unwrap_or("from-the-pod").to_owned())
            })
            .collect();
        let mut files: BTreeSet<String> = env.values().cloned().collect();
        files.extend(
            configuration.iter().filter(|_| name == "plane").flat_map(|l| l.split('"')).map(str::to_owned),
        );
        let mut used = 0;
        for (mount, volume) in &mounts {
            let Some(secret) = volume["secret"]["secretName"].as_str() else { continue };
            for file in files.iter().filter_map(|f| f.strip_prefix(&format!("{mount}/"))) {
                assert!(secrets[secret].contains(file), "{name}: {secret} has no {file}");
                used += 1;
            }
        }
        assert!(used > 0, "{name}");
        if name != "plane" {
            let args = strings(&container["args"]);
            assert_eq!(args[0], name);
            typed(&args, &env);
            assert_eq!(string(&container["image"]), image());
            assert_eq!(env["SPRINGTIDE_PLANE"], format!("rediss://springtide-{name}@plane:6380/0"));
            assert_eq!(string(&pod["metadata"]["labels"]["springtide/plane"]), "yes");
        }
        assert_eq!(container["resources"]["requests"], container["resources"]["limits"], "{name}");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], Yaml::Boolean(true));
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], Yaml::Boolean(true));
    }
    for (labels, selector) in [
        (&worker["template"], &worker["selector"]["matchLabels"]),
        (&plane["template"], &plane["selector"]["matchLabels"]),
        (&plane["template"], &by_kind("Service")["spec"]["selector"]),
        (&plane["template"], &by_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]),
    ] {
        for (label, value) in pairs(selector) {
            assert_eq!(&labels["metadata"]["labels"][label], value);
        }
    }
    assert_eq!(by_kind("Service")["spec"]["ports"][0]["port"], Yaml::Integer(6380));
    assert!(configuration.contains(&"tls-port 6380".to_owned()));
    let env = &manager["template"]["spec"]["containers"][0]["env"];
    let expected =
        env.as_vec().unwrap().iter().find(|e| e["name"].as_str() == Some("SPRINGTIDE_EXPECT_WORKERS"));
    assert_eq!(
        expected.unwrap()["value"].as_str(),
        worker["replicas"].as_i64().map(|n| n.to_string()).as_deref()
    );
    // A night is tried once, and never beside another.
    assert_eq!(string(&cron["concurrencyPolicy"]), "Forbid");
    assert_eq!(manager["backoffLimit"], Yaml::Integer(0));
    assert_eq!(string(&manager["template"]["spec"]["restartPolicy"]), "Never");
}
