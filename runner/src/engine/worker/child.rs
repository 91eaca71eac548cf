//! Inside the worker: one request after the other, until the server says stop or goes away.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use baton_proto::worker::{Failed, Load, Loaded, Placed, Ran, Request, Response, Run, request, response};
use bytes::Bytes;
use rustix::net::RecvFlags;
use rustix::process::{Resource, Rlimit, Signal};

use super::area::{Area, Side};
use super::fault;
use super::process::{receive, ring};
use crate::bundle::Execution;
use crate::config::Limits;
use crate::engine::{EngineOptions, Engines, Instance, RunControl, describe};
use crate::error::{Code, Error, Result};
use crate::tensor::{Dtype, Tensor};

/// Descriptors that a worker may have open at once.
const MOST_DESCRIPTORS: u64 = 1024;

/// Arguments of the hidden subcommand. Its only caller is the server.
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// The server's process
    #[arg(long)]
    parent: u32,
}

/// Runs a worker to its end.
pub fn main(args: &WorkerArgs) -> ExitCode {
    // What the server may have inherited itself is nothing for a model.
    // SAFETY: nothing in this process has opened a descriptor beyond the first three yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    // A group of its own, which ends as a whole; and with the server's thread that started it.
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = std::env::set_current_dir("/");
    // The server may have died before the kernel was told to end this process with it.
    if rustix::process::getppid().is_none_or(|parent| parent.as_raw_pid() as u32 != args.parent) {
        return ExitCode::FAILURE;
    }
    let Ok(bell) = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3) else { return ExitCode::FAILURE };
    let Ok([memory, artifact]) = receive(&bell) else { return ExitCode::FAILURE };
    // A model that reads its standard input finds nothing there.
    let Ok(nothing) = File::open("/dev/null") else { return ExitCode::FAILURE };
    if rustix::stdio::dup2_stdin(&nothing).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(area) = Area::map(memory) else { return ExitCode::FAILURE };
    fault::install(area.last_words());
    let mut worker = Worker { area, bell, number: 0, artifact: File::from(artifact), instance: None };
    while let Some(request) = worker.next() {
        match request.call {
            Some(request::Call::Load(load)) => {
                let result = worker.load(&load);
                worker.answer(result);
            }
            Some(request::Call::Run(run)) => {
                let result = worker.run(&run);
                worker.answer(result);
            }
            Some(request::Call::Stop(_)) | None => break,
        }
    }
    worker.instance = None;
    // Destructors of the library that run now are the last thing that may go wrong, and nobody waits for them.
    ExitCode::SUCCESS
}

struct Worker {
    area: Area,
    bell: OwnedFd,
    /// That of the request under way.
    number: u64,
    artifact: File,
    instance: Option<Box<dyn Instance>>,
}

impl Worker {
    /// The next request; `None` if the server is gone.
    fn next(&mut self) -> Option<Request> {
        let mut byte = [0; 1];
        loop {
            match rustix::net::recv(&self.bell, &mut byte[..], RecvFlags::empty()) {
                Ok((_, 0)) => return None,
                Ok(_) => {
                    let request: Request = self.area.message(Side::Request)?;
                    self.number = request.number;
                    return Some(request);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn answer(&mut self, result: Result<response::Result>) {
        let broken = matches!(&result, Err(error) if error.code() == Code::ModelOverrun);
        let failed = |code: &str, text: &str| {
            response::Result::Failed(Failed { code: code.to_owned(), text: text.to_owned() })
        };
        let result = result.unwrap_or_else(|error| failed(error.code().id(), error.text()));
        let number = self.number;
        if !self.area.put_message(Side::Answer, &Response { number, result: Some(result) }) {
            let text = "the model's answer has too many tensors or labels";
            let result = Some(failed(Code::OutputTooLarge.id(), text));
            self.area.put_message(Side::Answer, &Response { number, result });
        }
        let heard = ring(&self.bell);
        if broken || !heard {
            // Memory that is not the model's was written to, or a descriptor closed: nothing here is what it was.
            std::process::abort();
        }
    }

    fn load(&mut self, load: &Load) -> Result<response::Result> {
        let internal = |what: &'static str| {
            move |error: std::io::Error| Error::new(Code::Internal, what).caused_by(error)
        };
        // The version's other workers have the same open file, and with it one position: it is not used.
        let size = self.artifact.metadata().map_err(internal("cannot read the artifact"))?.len();
        let mut artifact = vec![0; usize::try_from(size).unwrap_or(0)];
        self.artifact.read_exact_at(&mut artifact, 0).map_err(internal("cannot read the artifact"))?;
        // The heap of our own making does not count.
        set_limits(load.memory_bytes.saturating_add(artifact.len() as u64))?;
        let limits = Limits::default();
        let onnxruntime = Some(load.onnxruntime.as_str()).filter(|path| !path.is_empty());
        let engines = Engines::for_worker(onnxruntime.map(std::path::Path::new), &limits);
        let options = EngineOptions {
            intra_threads: load.intra_threads.max(1) as usize,
            load_time: Duration::from_millis(load.load_ms),
            execution: Some(Execution::InProcess),
            ..EngineOptions::default()
        };
        let instance = engines.prepare(artifact, &options)?;
        let loaded = Loaded {
            signature: describe::write(instance.signature()),
            platform: instance.platform().to_owned(),
        };
        self.instance = Some(instance);
        Ok(response::Result::Loaded(loaded))
    }

    fn run(&mut self, run: &Run) -> Result<response::Result> {
        let instance = self.instance.as_ref();
        let instance = instance.ok_or_else(|| Error::new(Code::Internal, "no model is loaded"))?;
        let inputs = run.inputs.iter().map(|placed| self.input(placed)).collect::<Result<Vec<_>>>()?;
        let wanted: Vec<usize> = run.outputs.iter().map(|position| *position as usize).collect();
        let control = RunControl {
            deadline: Instant::now() + Duration::from_millis(run.time_ms),
            cancelled: None,
            output_bytes: usize::try_from(run.output_bytes).unwrap_or(usize::MAX),
        };
        let tensors = instance.run(&inputs, &wanted, &control)?;
        let mut fill = self.area.fill(Side::Answer);
        let outputs: Option<Vec<Placed>> = tensors.iter().map(|tensor| fill.put_tensor(tensor)).collect();
        let outputs = outputs.ok_or_else(|| {
            Error::new(Code::OutputTooLarge, "the outputs together are larger than a worker can pass on")
        })?;
        Ok(response::Result::Ran(Ran { outputs }))
    }

    fn input(&self, placed: &Placed) -> Result<Tensor> {
        let bad = |text: &str| Error::new(Code::Internal, format!("a request of the server: {text}"));
        let dtype = Dtype::from_name(&placed.datatype).ok_or_else(|| bad("unknown datatype"))?;
        // SAFETY: the tensor is dropped before this request is answered, and the area is unmapped after the loop.
        let bytes = unsafe { self.area.borrow_request(placed.offset, placed.size) };
        let bytes = bytes.ok_or_else(|| bad("data outside of its place"))?;
        Tensor::raw(dtype, placed.shape.clone(), Bytes::from_static(bytes))
            .map_err(|error| bad(&error.to_string()))
    }
}

/// No core files, few descriptors, so much more memory than there is now; or less, if this process has a limit already.
fn set_limits(memory: u64) -> Result<()> {
    let limit = |resource, wanted: u64| {
        let most = rustix::process::getrlimit(resource).maximum;
        let value = most.map_or(wanted, |most| most.min(wanted));
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
            .map(|()| value)
            .map_err(|error| Error::new(Code::Internal, "cannot set a worker's limits").caused_by(error))
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, MOST_DESCRIPTORS)?;
    let now = fault::data_bytes();
    let most = limit(Resource::Data, now.saturating_add(memory))?;
    fault::set_memory(now, most.saturating_sub(now));
    Ok(())
}
