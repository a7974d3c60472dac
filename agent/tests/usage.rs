//! Wrong usage and wrong configuration: statuses and messages, before any archive is asked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stage;

use stage::{Stage, program, ran, run};

#[test]
fn help_and_version_are_no_failure() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["restore", "--help"],
        &["archive-push", "--help"],
        &["archive-get", "--help"],
    ] {
        let ran = run(arguments).expect(0);
        assert!(ran.stdout.contains("walpoint"), "{ran:?}");
    }
}

#[test]
fn wrong_usage_is_2_and_of_archive_get_255() {
    for (arguments, status) in [
        (&["--nonsense"][..], 2),
        (&[], 2),
        (&["plan", "--nonsense"], 2),
        (&["archive-push"], 2),
        (&["archive-push", "a", "b"], 2),
        (&["archive-push", "--help", "x"], 2),
        (&["archive-get"], 255),
        (&["archive-get", "a"], 255),
        (&["archive-get", "a", "b", "c"], 255),
        (&["archive-get", "--nonsense", "a", "b"], 255),
        (&["--nonsense", "archive-get", "a", "b"], 255),
        (&["archive-get", "a", "b", "--help"], 255),
        (&["--json", "archive-get", "--help"], 255),
        (&["archive-get", "--version"], 255),
        (&["--config", "archive-get", "a", "b"], 255),
        (&["archive-get", "not-a-wal-file", "b"], 255),
    ] {
        let ran = run(arguments);
        assert_eq!(ran.status, status, "{arguments:?}: {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn check_says_unknown_in_one_line_on_standard_output_whatever_is_wrong() {
    let stage = Stage::new();
    let unknown = |ran: stage::Ran, what: &str| {
        let ran = ran.expect(3).says(what);
        let line = ran.stdout.strip_suffix('\n').unwrap();
        assert!(line.starts_with("UNKNOWN: ") && line.contains(what), "{ran:?}");
        assert!(!line.contains(['|', '\n']), "{ran:?}");
    };
    unknown(run(&["check", "--nonsense|x"]), "--nonsense");
    unknown(run(&["check", "--config", "/nowhere/walpoint.toml"]), "could not read the configuration file");
    stage.configure("[check]\nlook_bakc = 1\n");
    unknown(stage.run(&["check"]), "look_bakc");
    if cfg!(debug_assertions) {
        let mut panicking = stage.command(&["check"]);
        stage.configure("");
        unknown(ran(panicking.env("WALPOINT_TEST_PANIC", "check")), "internal error");
    }
    // One object is one object.
    let error = stage.run(&["check", "--json", "--nonsense"]).expect(3).json();
    assert_eq!(error["status"], 3);
}

#[test]
fn an_error_with_json_is_one_object() {
    for arguments in [
        &["--json", "plan"][..],
        &["plan", "--json"],
        &["--json", "plan", "--nonsense"],
        &["--json", "list", "--config", "/nowhere/walpoint.toml"],
    ] {
        let error = run(arguments).expect(2).json();
        assert_eq!(error["status"], 2, "{error}");
        assert!(error["error"].is_string() && error.get("hint").is_some(), "{error}");
        assert_eq!(error.as_object().unwrap().len(), 3, "{error}");
    }
}

#[test]
fn global_options_stand_before_and_after_the_command() {
    let stage = Stage::new();
    let config = stage.config();
    let config = config.to_str().unwrap();
    for arguments in [["--config", config, "--json", "list"], ["list", "--json", "--config", config]] {
        // The archive is empty: the configuration was found and used.
        assert_eq!(run(&arguments).expect(1).json()["status"], 1);
    }
}

#[test]
fn unknown_keys_and_variables_name_the_nearest() {
    let stage = Stage::new();
    stage.configure("[compression]\nlevle = 3\n");
    stage.run(&["list"]).expect(2).says("levle").says("the nearest known name is level");
    stage.push(stage::SMALL).expect(2).says("levle");
    stage.get(stage::SMALL).expect(255).says("levle");
    stage.configure("");
    let mut command = stage.command(&["list"]);
    ran(command.env("WALPOINT_ARCHIVE_URI", "x")).expect(2).says("WALPOINT_ARCHIVE_URL");
}

#[test]
fn the_environment_alone_is_enough() {
    let stage = Stage::new();
    let mut command = program();
    command
        .current_dir(stage.data())
        .env("WALPOINT_ARCHIVE_URL", format!("file://{}", stage.archive().display()))
        .args(["archive-push", &format!("pg_wal/{}", stage::SMALL)]);
    ran(&mut command).expect(0);
    assert!(stage.keys().iter().any(|key| key.contains(stage::SMALL)), "{:?}", stage.keys());
}

#[test]
fn exactly_one_target_is_taken() {
    let stage = Stage::new();
    for arguments in [
        &["plan"][..],
        &["plan", "--latest", "--target-immediate"],
        &["plan", "--latest", "--exclusive"],
        &["plan", "--target-time", "2026-11-20 21:45:00"],
        &["plan", "--target-time", "yesterday"],
        &["restore", "--data-directory", "/nowhere"],
        &["restore", "--latest", "--standby", "--take-over"],
        &["restore", "--latest", "--tablespace", "nonsense", "--data-directory", "/nowhere"],
    ] {
        let ran = stage.run(arguments);
        assert_eq!(ran.status, 2, "{arguments:?}: {ran:?}");
    }
}

#[test]
fn a_configuration_that_is_wrong_says_the_next_step() {
    let stage = Stage::new();
    for text in [
        "[nothing_like_it]\nx = 1\n",
        "x = [\n",
        "[agent]\nworkers = 0\n",
        "[check]\nwal_lag_warning = \"2h\"\nwal_lag_critical = \"1h\"\n",
        "[compression]\nlevel = 1000\n",
        "[archive_push]\ndeadline = 30\n",
    ] {
        stage.configure(text);
        stage.run(&["list"]).expect(2).says("hint: ");
    }
    stage.configure("");
    let mut command = stage.command(&["list"]);
    ran(command.env("WALPOINT_AGENT_WORKERS", "many")).expect(2).says("hint: correct or unset the variable");
    stage.run(&["plan", "--latest", "--timezone", "UTC"]).expect(2).says("hint: ");
    let data = stage.path("no cluster");
    std::fs::create_dir(&data).unwrap();
    stage.configure(&format!("[postgres]\ndata_directory = \"{}\"\n", data.display()));
    stage.run(&["backup"]).expect(2).says("is not a PostgreSQL data directory").says("hint: ");
    stage.push("00000001000000000000000D").expect(1).says("could not read").says("hint: ");
}

#[test]
fn without_an_archive_the_next_step_is_named() {
    let stage = Stage::new();
    std::fs::write(stage.config(), "").unwrap();
    stage.run(&["list"]).expect(2).says("no archive is configured").says("walpoint init");
}

#[test]
fn a_directory_that_is_not_there_is_an_outage_and_only_init_makes_it() {
    let stage = Stage::new();
    std::fs::remove_dir(stage.archive()).unwrap();
    stage.push(stage::SMALL).expect(1);
    stage.get(stage::SMALL).expect(255);
    for arguments in [&["list"][..], &["window"], &["plan", "--latest"], &["list", "--cluster", "7"]] {
        stage.run(arguments).expect(1).says("archive\"");
    }
    assert!(!stage.archive().exists());
    stage.configure(&format!("[postgres]\ndata_directory = \"{}\"\n", stage.data().display()));
    stage.run(&["init"]).expect(0);
    assert!(stage.archive().exists());
    stage.push(stage::SMALL).expect(0);
}

#[test]
fn an_endpoint_in_clear_is_warned_of_once_and_not_on_this_machine() {
    let stage = Stage::new();
    // Nobody listens on port 1, whatever the address; 0.0.0.0 is not taken for loopback.
    for (host, warnings) in [("0.0.0.0", 1), ("127.0.0.1", 0), ("localhost", 0), ("[::1]", 0)] {
        let text = format!(
            "[archive]\nurl = \"s3://bucket\"\nendpoint = \"http://{host}:1\"\nregion = \"x\"\n[archive_get]\nretry_for = \"300ms\"\n"
        );
        std::fs::write(stage.config(), text).unwrap();
        let mut command = stage.command(&["archive-get", stage::SMALL, "pg_wal/RECOVERYXLOG"]);
        command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "x");
        let ran = ran(&mut command).expect(255);
        let said = ran.stderr.lines().filter(|line| line.contains("WARN") && line.contains("plain http"));
        assert_eq!(said.count(), warnings, "{host}: {ran:?}");
    }
}

#[test]
fn a_variable_of_a_list_has_commas_between() {
    let stage = Stage::new();
    let recipients = "age1rzgpj8yfr0esq52a4wnph9velcrsxpqmuqueuyjkc4a06ucnj9hs4mc8v4,age1nonsense";
    let mut command = stage.command(&["archive-push", &format!("pg_wal/{}", stage::SMALL)]);
    // The second is judged on its own.
    let said = ran(command.env("WALPOINT_ENCRYPTION_RECIPIENTS", recipients)).expect(2).stderr;
    assert!(said.contains("recipient 2 is not"), "{said}");
}
