//! The program: reads what was typed, does it, and turns the outcome into an exit code.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    process::ExitCode,
    time::{Duration, Instant},
};

use springtide::{
    app::{
        self, Failure, Out,
        run::{INTERRUPTED, TERMINATED},
    },
    cli::{self, Cli, Command},
    verdict::Exit,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let filter = EnvFilter::try_from_env("SPRINGTIDE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,springtide=info,goose=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // A log that nobody reads any more is no reason to end a run.
        .log_internal_errors(false)
        .init();
    let outcome = own_stdout()
        .and_then(|out| Ok((out, tokio::runtime::Builder::new_current_thread().enable_all().build()?)))
        .map_err(Failure::runtime)
        .and_then(|(out, runtime)| runtime.block_on(act(cli, out)));
    match outcome {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            complain(format_args!("springtide: {failure}"));
            ExitCode::from(failure.exit.code())
        }
    }
}

/// What was typed, or how to end at once: help and version on stdout, mistakes on stderr.
fn read() -> Result<Cli, ExitCode> {
    let usage = ExitCode::from(Exit::Usage.code());
    let config = match fs::read_to_string(cli::CONFIG_FILE) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => {
            complain(format_args!("springtide: {}: {e}", cli::CONFIG_FILE));
            return Err(usage);
        }
    };
    cli::parse(std::env::args_os(), config.as_deref()).map_err(|error| {
        if error.use_stderr() {
            complain(format_args!("{}", cli::one_line(&error)));
            usage
        } else {
            // Help or version; a closed pipe is no reason to complain.
            let _ = error.print();
            ExitCode::SUCCESS
        }
    })
}

/// Says what went wrong. Where stderr is closed or full, the exit code has to say it alone.
fn complain(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{what}");
}

async fn act(cli: Cli, mut out: Out) -> Result<Exit, Failure> {
    let stop = listen_for_signals().map_err(Failure::runtime)?;
    match cli.command {
        None => app::run::run(cli.run, &mut out, stop).await,
        Some(Command::Run(args)) => app::run::run(*args, &mut out, stop).await,
        Some(Command::Matrix(args)) => app::matrix::matrix(*args, &mut out, stop).await,
        Some(Command::Report(args)) => app::report::report(&args, &mut out),
        Some(Command::Backend(args)) => app::backend::backend(args, &mut out, stop).await,
        Some(Command::Tap(args)) => app::tap::tap(args, &mut out, stop).await,
        Some(Command::Manager(args)) => app::manager::manager(*args, &mut out, stop).await,
        Some(Command::Worker(args)) => app::worker::worker(*args, &mut out, stop).await,
    }
}

/// Keeps stdout for ourselves: Goose prints a line of its own at the start of a load, which goes
/// nowhere from now on.
fn own_stdout() -> io::Result<Out> {
    let ours = File::from(rustix::io::dup(io::stdout().as_fd())?);
    let nowhere = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(nowhere)?;
    Ok(Box::new(io::LineWriter::new(ours)))
}

/// A second signal so soon after the first is the same one: wrappers signal a process and its group.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

/// Holds the reason to stop once there is one. A second signal ends the process at once.
fn listen_for_signals() -> io::Result<watch::Receiver<Option<String>>> {
    // Goose sets a Ctrl-C handler through this crate unless there is one already; the handlers
    // below come on top of it.
    ctrlc::set_handler(|| ()).map_err(io::Error::other)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            let (why, exit) = tokio::select! {
                Some(()) = interrupt.recv() => (INTERRUPTED, Exit::Interrupted),
                Some(()) = terminate.recv() => (TERMINATED, Exit::Terminated),
                // The terminal is gone; whoever started us cannot read what we say, but the target can.
                Some(()) = hang_up.recv() => (TERMINATED, Exit::Terminated),
            };
            match first {
                Some(first) if first.elapsed() < SAME_SIGNAL => continue,
                Some(_) => leave(exit),
                None => first = Some(Instant::now()),
            }
            tracing::warn!("{why}: coming to an orderly end; once more to leave at once");
            sender.send_replace(Some(why.to_owned()));
        }
    });
    Ok(receiver)
}

#[expect(clippy::exit, reason = "whoever asks twice does not want to wait for anything")]
fn leave(exit: Exit) -> ! {
    std::process::exit(i32::from(exit.code()))
}
