//! The command `rambutan`.

mod commands;
mod picture;
mod problem;
mod ranks;
mod reading;

use std::{process::ExitCode, sync::Arc};

use clap::{Args, Parser, Subcommand};
use problem::Problem;
use rambutan_engine::{Gpu, GpuOptions};
use rambutan_model::ranks::Ranks;

/// Finds one sentence in millions of tokens, on any GPU.
#[derive(Parser)]
#[command(
    name = "rambutan",
    version,
    after_help = "Examples:\n  rambutan demo\n  rambutan ask --file notes.txt \"What is the code of Rivaze?\"\n  rambutan selfcheck --quick\n  rambutan --backend vulkan --adapter nvidia bench matmul\n\nExit codes: 0 success, 1 a check failed, 2 the input cannot be used."
)]
struct Cli {
    #[command(flatten)]
    device: Device,
    #[command(subcommand)]
    command: Command,
}

/// Which device, for every command.
#[derive(Args)]
pub struct Device {
    /// A part of the adapter's name, or its index in `rambutan info`
    #[arg(long, global = true, value_name = "NAME|INDEX", env = "RAMBUTAN_ADAPTER")]
    adapter: Option<String>,
    /// vulkan, metal, dx12 or gl
    #[arg(long, global = true, value_name = "BACKEND", env = "RAMBUTAN_BACKEND")]
    backend: Option<String>,
    /// The most device memory to take, such as 4GiB or 512MiB
    #[arg(long, global = true, value_name = "BYTES", env = "RAMBUTAN_MAX_MEMORY", value_parser = reading::size)]
    max_memory: Option<u64>,
}

impl Device {
    fn options(&self) -> GpuOptions {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        let options = GpuOptions::from_env().with_user_cache();
        let max_memory = self.max_memory.filter(|&n| n > 0);
        GpuOptions { adapter: given(&self.adapter), backend: given(&self.backend), max_memory, ..options }
    }

    /// Where there are several adapters like the one asked for, the ranks of a machine take one each, in turn.
    fn take_turns(&mut self, ranks: &dyn Ranks) -> Result<(), Problem> {
        let options = self.options();
        let all = pollster::block_on(rambutan_engine::gpu::adapters(&options))?;
        let wanted = options.adapter.unwrap_or_default().to_lowercase();
        // An index is one adapter, for all; what names none, opening it tells.
        if let Some(first) = all.iter().find(|a| a.info.name.to_lowercase().contains(&wanted))
            && wanted.parse::<usize>().is_err()
        {
            let kind = |a: &rambutan_engine::gpu::AdapterSummary| {
                (a.info.name.clone(), a.info.backend, a.info.device_type)
            };
            let alike: Vec<_> = all.iter().filter(|a| kind(a) == kind(first)).collect();
            self.adapter = Some(alike[ranks.local() % alike.len()].index.to_string());
        }
        Ok(())
    }

    /// The device asked for.
    pub fn open(&self) -> Result<Gpu, Problem> {
        Ok(Gpu::new(self.options())?)
    }
}

#[derive(Subcommand)]
enum Command {
    Demo(commands::demo::Demo),
    Ask(commands::ask::Ask),
    Read(commands::read::Read),
    Generate(commands::generate::Generate),
    Eval(commands::eval::Eval),
    Info(commands::info::Info),
    Selfcheck(commands::selfcheck::Selfcheck),
    Train(commands::train::Train),
    Jobs(commands::jobs::Jobs),
    Bench(commands::bench::Bench),
    Inspect(commands::inspect::Inspect),
    Shaders(commands::shaders::Shaders),
}

impl Command {
    /// Refuses what several processes would only do several times.
    fn over_ranks(&self) -> Result<(), Problem> {
        match self {
            Command::Train(_) => Ok(()),
            Command::Ask(c) => c.over_ranks(),
            Command::Eval(c) => c.over_ranks(),
            _ => Err(Problem::input(
                "this command works in one process",
                "start it without mpirun; over ranks there are `train`, `ask --file`, `eval passkey` and `eval ruler`",
            )),
        }
    }
}

fn run(cli: &Cli, ranks: &Arc<dyn Ranks>) -> Result<(), Problem> {
    match &cli.command {
        Command::Demo(c) => c.run(&cli.device),
        Command::Ask(c) => c.run(&cli.device, &**ranks),
        Command::Read(c) => c.run(&cli.device),
        Command::Generate(c) => c.run(&cli.device),
        Command::Eval(c) => c.run(&cli.device, &**ranks),
        Command::Info(c) => c.run(&cli.device.options()),
        Command::Selfcheck(c) => c.run(&cli.device.open()?),
        Command::Train(c) => c.run(ranks, || cli.device.open()),
        Command::Jobs(c) => c.run(&cli.device),
        Command::Bench(c) => c.run(|| cli.device.open()),
        Command::Inspect(c) => c.run(),
        Command::Shaders(c) => c.run(),
    }
}

fn main() -> ExitCode {
    // Vulkan's window system complains on stderr where there is none; nothing here opens windows.
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread exists yet.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version arrive as errors too.
        Err(e) if !e.use_stderr() => e.exit(),
        Err(e) if e.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => e.exit(),
        Err(e) => {
            let text = e.to_string();
            let mut parts = text.split("\n\n").map(|p| p.trim().trim_start_matches("error: "));
            let message = parts.next().unwrap_or_default().to_owned();
            let tip = parts.next().filter(|p| p.starts_with("tip: "));
            let hint =
                tip.map_or("`rambutan --help` and `rambutan COMMAND --help` show what fits", |t| &t[5..]);
            let problem = Problem::input(message, hint);
            problem.report();
            return ExitCode::from(problem.code);
        }
    };
    // A panic is a bug of ours; the user gets a line to report, not a backtrace.
    std::panic::set_hook(Box::new(|info| {
        Problem::check(
            format!("internal: {info}"),
            "this is a bug in Rambutan: please report it with the command and the output of `rambutan info`",
        )
        .report();
    }));
    let ranks = match ranks::open() {
        Ok(ranks) => ranks,
        Err(problem) => {
            problem.report();
            return ExitCode::from(problem.code);
        }
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        if ranks.rank() > 0 {
            problem::hush();
        }
        if ranks.size() > 1 {
            ranks::agree(&*ranks, cli.command.over_ranks())?;
            ranks::agree(&*ranks, cli.device.take_turns(&*ranks))?;
        }
        run(&cli, &ranks)
    }));
    let code = match result {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(problem)) => {
            problem.report();
            if problem.is_shared() {
                return ExitCode::from(problem.code);
            }
            problem.code
        }
        Err(_) => 1,
    };
    // The others would wait for this one for ever.
    if ranks.size() > 1 {
        ranks.abort(code);
    }
    ExitCode::from(code)
}
