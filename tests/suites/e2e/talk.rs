//! Talking with what runs: logs that go on, commands with their exit code, a terminal.

use std::process::Command;

use supercloud_tests::{
    Outcome, World,
    cli::text,
    hold,
    process::complete,
    specs::{self, RECORDS, WEB},
    wait::{LATER, SOON, until},
    world::SMALL,
    wrong,
};

#[test]
fn logs_are_shown_cut_to_their_tail_and_followed() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        let counter = "for i in 1 2 3 4 5; do echo line $i; done; echo trouble >&2; \
                       while [ ! -e /tmp/go ]; do sleep 0.1; done; echo went on; exec sleep 1000";
        cli.apply_and_wait(&specs::script("counter", "service", counter))?;
        let target = "camden/counter";
        until("all lines are there", SOON, || {
            let logs = cli.run(&["logs", target])?.with_code(0)?;
            let all = (1..=5).all(|i| logs.stdout.contains(&format!("line {i}\n")));
            if all && logs.stderr.contains("trouble") { Ok(()) } else { wrong(logs.to_string()) }
        })?;
        let tail = cli.run(&["logs", target, "-n", "2"])?.with_code(0)?;
        assert_eq!(tail.stdout.lines().count() + tail.stderr.lines().count(), 2, "{tail}");

        let mut following = cli.follow(&["logs", "-f", target], &world.file("follow.log"))?;
        until("what is there is shown", SOON, || must_say(&following.written()?, "line 5"))?;
        assert!(!following.written()?.contains("went on"));
        cli.ok(&["exec", target, "touch", "/tmp/go"])?;
        until("what is written later is shown too", SOON, || {
            following.must_run()?;
            must_say(&following.written()?, "went on")
        })?;
        // A followed log ends when its instance is gone.
        cli.stop_and_wait(target)?;
        until("the log ends", SOON, || match following.ended()? {
            Some(_) => Ok(()),
            None => wrong("it goes on"),
        })
    })
}

#[test]
fn the_console_of_a_vm_is_followed() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        cli.apply_and_wait(&specs::records())?;
        let mut following = cli.follow(&["logs", "-f", RECORDS], &world.file("console.log"))?;
        until("the heart beats three times", LATER, || {
            following.must_run()?;
            must_say(&following.written()?, "heartbeat 3")
        })
    })
}

#[test]
fn exec_passes_input_output_and_the_exit_code() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        cli.apply_and_wait(&specs::web(1))?;
        assert_eq!(cli.ok(&["exec", WEB, "echo", "hello"])?, "hello\n");
        cli.run(&["exec", WEB, "sh", "-c", "exit 7"])?.with_code(7)?;
        let both = cli.run(&["exec", WEB, "sh", "-c", "echo out; echo err >&2"])?.with_code(0)?;
        assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
        let much: String = (0..20_000).map(|line| format!("{line}\n")).collect();
        let counted = cli.run_with(&["exec", "-i", WEB, "wc", "-l"], &much)?.with_code(0)?;
        assert_eq!(counted.stdout.trim(), "20000");
        assert_eq!(cli.ok(&["exec", WEB, "sh", "-c", "echo $MODE"])?, "live\n");
        let instance = cli.running(WEB)?;
        assert_eq!(cli.ok(&["exec", text(&instance, "id"), "id", "-u"])?, "0\n");
        let nothing = cli.run(&["exec", WEB, "no-such-command"])?;
        hold(nothing.code != Some(0) && nothing.code.is_some(), || nothing.to_string())
    })
}

#[test]
fn exec_gives_a_terminal_to_who_has_one() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        cli.apply_and_wait(&specs::web(1))?;
        let without = cli.run(&["exec", "-it", WEB, "tty"])?.with_code(2)?;
        assert!(without.stderr.contains("needs a terminal"), "{without}");

        // `script` gives the command a terminal, and passes on its exit code.
        // Docker takes the terminal's size only once the command runs, so the command waits for it. (Without one, busybox's
        // stty says nothing and ends with 0.)
        let asks = "'tty; n=0; until stty size 2>/dev/null | grep . || [ $n -ge 100 ]; do n=$((n+1)); sleep 0.1; done; exit 9'";
        let inner = cli.command(&["exec", "-it", WEB, "sh", "-c", asks]);
        let words: Vec<String> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let mut command = Command::new("script");
        command.args(["-qec", &format!("stty rows 33 cols 111; {}", words.join(" ")), "/dev/null"]);
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let answer = complete(&mut command, b"", LATER)?.with_code(9)?;
        assert!(answer.stdout.contains("/dev/pts/"), "{answer}");
        hold(answer.stdout.contains("33 111"), || answer.to_string())
    })
}

fn must_say(written: &str, words: &str) -> Outcome {
    hold(written.contains(words), || written.to_owned())
}
