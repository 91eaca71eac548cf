//! `make bench-quick`: what Baton adds to an empty server, as ratios of one run on one machine.
//!
//! Both servers get the same request bytes and give the same answer bytes, under the same closed-loop load, in
//! alternating rounds; medians are compared. Absolute rates are printed for the reader and mean little: the load
//! generator shares the cores with the server. Nothing here is an assertion on time; a failed request is.

mod anchor;
mod load;
mod servers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use load::{Kind, Shot};
use servers::{Anchor, Baton};

/// Rounds a side and seconds a round.
struct Plan {
    rounds: usize,
    time: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["anchor", folder] => anchor::run(folder),
        ["typed"] => {
            let baton = Baton::start();
            assert_eq!(
                typed(&Plan { rounds: 5, time: Duration::from_millis(800) }, &baton),
                0,
                "requests failed"
            );
        }
        ["native"] => {
            let plan = Plan { rounds: 5, time: Duration::from_millis(800) };
            assert_eq!(native(&plan, &Baton::start()), 0, "requests failed");
        }
        ["quick"] | [] => bench(&Plan { rounds: 5, time: Duration::from_millis(800) }),
        ["long"] => bench(&Plan { rounds: 15, time: Duration::from_secs(3) }),
        other => panic!("quick, long, typed, native, or nothing; not {other:?}"),
    }
}

fn bench(plan: &Plan) {
    let baton = Baton::start();
    baton.push("small", &servers::sample_model());
    let folder = tempfile::TempDir::new().expect("a folder");
    baton.record(folder.path());
    let anchor = Anchor::start(folder.path());

    println!("{} rounds of {:?} a side, alternating; medians\n", plan.rounds, plan.time);
    println!(
        "| request | callers | Baton req/s | empty req/s | ratio | p50 us | p99 us | empty p50 | empty p99 | CPU us | empty CPU us |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut failed = 0;
    let mut beyond = Vec::new();
    for kind in Kind::ALL {
        for callers in [1, 8, 64] {
            let row = compare(plan, kind, callers, &baton, &anchor);
            failed += row.failed;
            beyond.push((kind, callers, row.cpu.0 - row.cpu.1));
            println!(
                "| {} | {callers} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
                kind.name(),
                row.rate.0,
                row.rate.1,
                row.rate.0 / row.rate.1,
                row.p50.0,
                row.p99.0,
                row.p50.1,
                row.p99.1,
                row.cpu.0,
                row.cpu.1,
            );
        }
    }
    let run = baton.engine_micros("small");
    println!("\nthe engine's own run: {run:.1} us; CPU beyond the empty server, divided by it:");
    for (kind, callers, cpu) in beyond {
        println!("  {} at {callers}: {:.1}", kind.name(), cpu / run);
    }
    failed += typed(plan, &baton);
    failed += native(plan, &baton);
    let (quiet, swapping, pushes) = disturbance(plan, &baton, &mut failed);
    println!(
        "\np99 of the small model over gRPC at 1 caller: quiet {quiet:.0} us, while a 45 MB model was pushed {pushes} \
         times {swapping:.0} us, ratio {:.2}",
        swapping / quiet
    );
    assert_eq!(failed, 0, "requests failed");
}

/// Medians of one line of the table, Baton's first.
struct Row {
    rate: (f64, f64),
    p50: (f64, f64),
    p99: (f64, f64),
    cpu: (f64, f64),
    failed: usize,
}

fn compare(plan: &Plan, kind: Kind, callers: usize, baton: &Baton, anchor: &Anchor) -> Row {
    let request = servers::request(kind);
    let shoot = |address: &str, pid: u32| {
        let before = servers::cpu_micros(pid);
        let shot = load::shoot(address, kind, &request, callers, plan.time);
        let cpu = (servers::cpu_micros(pid) - before) / shot.answered.max(1) as f64;
        (shot, cpu)
    };
    let empty = anchor.address(kind);
    let mut ours: Vec<(Shot, f64)> = Vec::new();
    let mut theirs: Vec<(Shot, f64)> = Vec::new();
    // The first round of each warms up and is thrown away.
    for round in 0..=plan.rounds {
        let (left, right) = (shoot(baton.data(), baton.pid()), shoot(empty, anchor.pid()));
        if round > 0 {
            ours.push(left);
            theirs.push(right);
        }
    }
    let pair = |value: fn(&(Shot, f64)) -> f64| (median(&ours, value), median(&theirs, value));
    Row {
        rate: pair(|(shot, _)| shot.rate()),
        p50: pair(|(shot, _)| shot.quantile(0.5)),
        p99: pair(|(shot, _)| shot.quantile(0.99)),
        cpu: pair(|(_, cpu)| *cpu),
        failed: ours.iter().chain(&theirs).map(|(shot, _)| shot.failed).sum(),
    }
}

/// A typed method against the tensor endpoint: the same model, the same floats, in one run. Gives what failed.
fn typed(plan: &Plan, baton: &Baton) -> usize {
    println!(
        "\n| floats in a row | callers | typed req/s | tensor req/s | ratio | typed CPU us | tensor CPU us |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut failed = 0;
    for columns in [784, 150_528] {
        baton.push_with("wide", &baton_tests::onnx::largest(columns), "contract", servers::WIDE_CONTRACT);
        let row: Vec<f32> = (0..columns).map(|index| index as f32).collect();
        let (typed, tensor) = (servers::typed_request(&row), servers::tensor_request("wide", "x", &row));
        for callers in [1, 8] {
            let shoot = |kind, request| {
                let before = servers::cpu_micros(baton.pid());
                let shot = load::shoot(baton.data(), kind, request, callers, plan.time);
                let cpu = (servers::cpu_micros(baton.pid()) - before) / shot.answered.max(1) as f64;
                (shot, cpu)
            };
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for round in 0..=plan.rounds {
                let pair = (shoot(Kind::Typed, &typed), shoot(Kind::Grpc, &tensor));
                if round > 0 {
                    left.push(pair.0);
                    right.push(pair.1);
                }
            }
            failed += left.iter().chain(&right).map(|(shot, _)| shot.failed).sum::<usize>();
            let rate = |shots: &[(Shot, f64)]| median(shots, |(shot, _)| shot.rate());
            let cpu = |shots: &[(Shot, f64)]| median(shots, |(_, cpu)| *cpu);
            println!(
                "| {columns} | {callers} | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} |",
                rate(&left),
                rate(&right),
                rate(&left) / rate(&right),
                cpu(&left),
                cpu(&right),
            );
        }
    }
    failed
}

/// One model as ONNX and as a native library, each in the server's process and in workers. Gives what failed.
fn native(plan: &Plan, baton: &Baton) -> usize {
    let (onnx, library) = (servers::sample_model(), servers::native_model());
    let models = [
        ("onnx", "in-process", &onnx),
        ("native", "in-process", &library),
        ("onnx", "isolated", &onnx),
        ("native", "isolated", &library),
    ];
    println!("\n| model | execution | callers | req/s | p50 us | p99 us | to the model and back, us |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut failed = 0;
    for callers in [1, 8] {
        let name = |index: usize| format!("execution-{callers}-{index}");
        for (index, (_, execution, artifact)) in models.iter().enumerate() {
            let manifest = format!("execution = \"{execution}\"\n");
            baton.push_with(&name(index), artifact, "manifest", &manifest);
        }
        let mut shots: Vec<Vec<(Shot, f64)>> = models.iter().map(|_| Vec::new()).collect();
        for round in 0..=plan.rounds {
            for (index, shots) in shots.iter_mut().enumerate() {
                let request = servers::tensor_request(&name(index), "X", &servers::ROW);
                let shot = load::shoot(baton.data(), Kind::Grpc, &request, callers, plan.time);
                if round > 0 {
                    shots.push((shot, 0.0));
                }
            }
        }
        for (index, (model, execution, _)) in models.iter().enumerate() {
            let shots = &shots[index];
            failed += shots.iter().map(|(shot, _)| shot.failed).sum::<usize>();
            println!(
                "| {model} | {execution} | {callers} | {:.0} | {:.0} | {:.0} | {:.1} |",
                median(shots, |(shot, _)| shot.rate()),
                median(shots, |(shot, _)| shot.quantile(0.5)),
                median(shots, |(shot, _)| shot.quantile(0.99)),
                baton.engine_micros(&name(index)),
            );
        }
    }
    failed
}

/// p99 of a small model, quiet and while another, large one is pushed over and over.
fn disturbance(plan: &Plan, baton: &Baton, failed: &mut usize) -> (f64, f64, usize) {
    let request = servers::request(Kind::Grpc);
    let large = [servers::large_model(1.0), servers::large_model(2.0)];
    let mut quiet = Vec::new();
    let mut busy = Vec::new();
    let mut pushes = 0;
    for _ in 0..plan.rounds {
        quiet.push((load::shoot(baton.data(), Kind::Grpc, &request, 1, plan.time), 0.0));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pusher = scope.spawn(|| {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    baton.push("large", &large[count % 2]);
                    count += 1;
                }
                count
            });
            busy.push((load::shoot(baton.data(), Kind::Grpc, &request, 1, plan.time * 2), 0.0));
            stop.store(true, Ordering::Relaxed);
            pushes += pusher.join().expect("the pusher ends");
        });
    }
    *failed += quiet.iter().chain(&busy).map(|(shot, _)| shot.failed).sum::<usize>();
    let p99 = |shots: &[(Shot, f64)]| median(shots, |(shot, _)| shot.quantile(0.99));
    (p99(&quiet), p99(&busy), pushes)
}

fn median(shots: &[(Shot, f64)], value: fn(&(Shot, f64)) -> f64) -> f64 {
    let mut values: Vec<f64> = shots.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
