//! Schedules and steppers against diffusers.

mod common;

use candle_core::Tensor;
use common::{close, distance, golden, reference, values};
use kino_models::sampling::{
    DpmDerivative, DpmOptions, DpmSolver, Euler, Schedule, ScheduleKind, SchedulerConfig, Solver,
    SolverType, Spacing, UniPc, UniPcOptions,
};

/// The levels and timesteps of every shift and number of steps in the reference.
#[test]
fn levels_equal_the_reference() {
    let golden = golden("wan_t2v/golden/scheduler.safetensors");
    for (kind, name) in [(ScheduleKind::UniPc, "unipc"), (ScheduleKind::Euler, "euler")] {
        for shift in [1, 3, 5, 12] {
            for steps in [1, 2, 4, 9, 20] {
                let case = format!("{name}.shift{shift}.n{steps}");
                let schedule = Schedule::new(kind, steps, f64::from(shift), 1000).unwrap();
                let sigmas = golden.f64s(&format!("{case}.sigmas"));
                assert_eq!(sigmas.len(), schedule.sigmas().len(), "{case}");
                for (a, b) in schedule.sigmas().iter().zip(&sigmas) {
                    assert!((a - b).abs() <= 1e-6, "{case}: sigma {a} is not {b}");
                }
                assert_eq!(
                    schedule.timesteps(),
                    golden.f64s(&format!("{case}.timesteps")),
                    "{case}"
                );
            }
        }
    }
}

/// The model of the reference: 0.7·sin(3x) + noise of the step.
fn velocity(x: &Tensor, noise: &Tensor) -> Tensor {
    (((x * 3.0).unwrap().sin().unwrap() * 0.7).unwrap() + noise).unwrap()
}

#[track_caller]
fn check_steps(case: &str, mut stepper: Solver) {
    let golden = golden("wan_t2v/golden/scheduler.safetensors");
    let (expected, noise) = (golden.get(&format!("step.{case}.x")), golden.get("step.noise"));
    let mut x = expected.get(0).unwrap();
    for step in 0..stepper.schedule().steps() {
        let velocity = velocity(&x, &noise.get(step).unwrap());
        x = stepper.step(&velocity, &x, &mut none).unwrap();
        close(&format!("{case}, step {step}"), &x, &expected.get(step + 1).unwrap(), 1e-5);
    }
    assert!(stepper.step(&x, &x, &mut none).is_err(), "{case}: a step after the last");
}

/// For steppers that add no noise.
fn none() -> kino_models::Result<Tensor> {
    panic!("noise was asked for")
}

fn unipc(steps: usize, order: usize) -> Solver {
    let schedule = Schedule::new(ScheduleKind::UniPc, steps, 3.0, 1000).unwrap();
    Solver::by(UniPc::new(UniPcOptions { order, ..UniPcOptions::default() }), schedule)
}

#[test]
fn steps_equal_the_reference() {
    for steps in [3, 8] {
        check_steps(&format!("unipc.n{steps}"), unipc(steps, 2));
        check_steps(&format!("unipc_o1.n{steps}"), unipc(steps, 1));
        check_steps(&format!("unipc_o3.n{steps}"), unipc(steps, 3));
        let schedule = Schedule::new(ScheduleKind::Euler, steps, 3.0, 1000).unwrap();
        check_steps(&format!("euler.n{steps}"), Solver::by(Euler, schedule));
    }
}

/// DPM-Solver++ and LCM as diffusers has them: levels, timesteps, and the sample after each step
/// within 1e-5 of the largest value (`tests/ref/solvers/make.py`).
#[test]
fn other_solvers_equal_the_reference() {
    let golden = golden("solvers/solvers.safetensors");
    let cases = std::fs::read(reference("solvers/cases.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() >= 30, "{} cases", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let config: SchedulerConfig = serde_json::from_value(case["config"].clone()).unwrap();
        let (kind, steps) = (config.kind(), case["steps"].as_u64().unwrap() as usize);
        let schedule = Schedule::new(kind, steps, config.shift(), 1000).unwrap();
        assert_eq!(schedule.timesteps(), golden.f64s(&format!("{name}.timesteps")), "{name}");
        for (a, b) in schedule.sigmas().iter().zip(golden.f64s(&format!("{name}.sigmas"))) {
            assert!((a - b).abs() <= 1e-7, "{name}: sigma {a} is not {b}");
        }
        let (expected, noise) = (golden.get(&format!("{name}.x")), golden.get("noise"));
        let (fresh, mut stepper) = (golden.get("fresh"), Solver::new(kind, schedule, &config));
        let mut x = expected.get(0).unwrap();
        for step in 0..steps {
            let velocity = velocity(&x, &noise.get(step).unwrap());
            let mut asked = 0;
            let mut more = || {
                asked += 1;
                Ok(fresh.get(step)?)
            };
            x = stepper.step(&velocity, &x, &mut more).unwrap();
            let adds = kind == ScheduleKind::Lcm && step + 1 < steps;
            assert_eq!(asked, usize::from(adds), "{name}, step {step}");
            let expected = expected.get(step + 1).unwrap();
            let largest = values(&expected).into_iter().fold(0.0, |m: f64, x| m.max(x.abs()));
            let gap = distance(&x, &expected) / largest;
            println!("{name}, step {step}: {gap:.1e}");
            assert!(gap <= 1e-5, "{name}, step {step}: {gap:.3e} is more than 1e-5");
        }
        assert!(stepper.step(&x, &x, &mut none).is_err(), "{name}: a step after the last");
    }
}

/// Levels that depend on the number of tokens, that lie by steps, that end above 0, as diffusers
/// has them within the rounding of f32 (`tests/ref/solvers/shifts.py`).
#[test]
fn levels_by_tokens_equal_the_reference() {
    let cases = std::fs::read(reference("solvers/shifts.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() >= 50, "{} cases", cases.len());
    let mut largest = 0.0f64;
    for case in cases {
        let config: SchedulerConfig = serde_json::from_value(case["config"].clone()).unwrap();
        let by_steps = case["by_steps"].as_bool().unwrap();
        let config = config.spaced(if by_steps { Spacing::Steps } else { Spacing::Trained });
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (steps, tokens) = (number("steps"), Some(number("tokens")));
        let schedule = Schedule::of(&config, config.kind(), steps, (None, tokens)).unwrap();
        let list = |key: &str| -> Vec<f64> {
            case[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        for (found, key, unit) in
            [(schedule.sigmas(), "sigmas", 1.0), (schedule.timesteps(), "timesteps", 1e3)]
        {
            let expected = list(key);
            assert_eq!(found.len(), expected.len(), "{key} of {case}");
            for (a, b) in found.iter().zip(&expected) {
                largest = largest.max((a - b).abs() / unit);
                assert!((a - b).abs() <= 2e-7 * unit, "{key}: {a} is not {b} in {case}");
            }
        }
        // A shift that is given replaces what tokens say; without either there are no levels.
        let unknown = Schedule::of(&config, config.kind(), steps, (None, None));
        assert_eq!(unknown.is_err(), config.is_dynamic());
        let given = |shift| Schedule::of(&config, config.kind(), steps, (Some(shift), None));
        assert_eq!(given(config.shift_of(tokens.unwrap())).unwrap(), schedule);
    }
    println!("at most {largest:.1e} apart");
}

/// With the true velocity of a straight path every stepper ends at the data, whatever its options.
#[test]
fn a_straight_path_ends_at_the_data() {
    let device = candle_core::Device::Cpu;
    let data = Tensor::new(&[0.5f32, -1.0, 2.0], &device).unwrap();
    let noise = Tensor::new(&[-0.3f32, 0.7, 1.1], &device).unwrap();
    let straight = (&noise - &data).unwrap();
    for solver in [SolverType::Bh1, SolverType::Bh2] {
        for (order, lower_order_final) in [(1, true), (2, false), (3, false), (3, true)] {
            let schedule = Schedule::new(ScheduleKind::UniPc, 6, 5.0, 1000).unwrap();
            let options =
                UniPcOptions { order, solver, lower_order_final, disable_corrector: vec![1] };
            let (mut stepper, mut x) = (Solver::by(UniPc::new(options), schedule), noise.clone());
            for _ in 0..6 {
                x = stepper.step(&straight, &x, &mut none).unwrap();
            }
            close(&format!("{solver:?} of order {order}"), &x, &data, 1e-5);
        }
    }
    for derivative in [DpmDerivative::Midpoint, DpmDerivative::Heun] {
        for (order, lower_order_final) in [(1, true), (2, false), (3, false), (3, true)] {
            let options =
                DpmOptions { order, derivative, lower_order_final, ..DpmOptions::default() };
            let schedule = Schedule::new(ScheduleKind::DpmSolver, 6, 5.0, 1000).unwrap();
            let start = schedule.sigmas()[0];
            let mut x = ((&noise * start).unwrap() + (&data * (1.0 - start)).unwrap()).unwrap();
            let mut stepper = Solver::by(DpmSolver::new(options), schedule);
            for _ in 0..6 {
                x = stepper.step(&straight, &x, &mut none).unwrap();
            }
            close(&format!("{derivative:?} of order {order}"), &x, &data, 1e-5);
        }
    }
}

#[test]
fn given_levels_are_used_as_they_are() {
    let own = Schedule::new(ScheduleKind::UniPc, 9, 3.0, 1000).unwrap();
    let same = Schedule::from_sigmas(ScheduleKind::UniPc, own.sigmas(), 1000).unwrap();
    assert_eq!(own.sigmas()[1..], same.sigmas()[1..]);
    assert_eq!(own.timesteps(), same.timesteps());
    let middle = own.skip(4).unwrap();
    assert_eq!(middle.steps(), 5);
    assert_eq!(middle.sigmas(), &own.sigmas()[4..]);
}

#[test]
fn impossible_levels_are_refused() {
    let refused = |sigmas: &[f64], says: &str| {
        let error = Schedule::from_sigmas(ScheduleKind::Euler, sigmas, 1000).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    };
    refused(&[1.0], "at least two");
    refused(&[1.0, 0.5, 0.5, 0.0], "0.5 follows 0.5");
    refused(&[1.5, 0.0], "1.5 lies outside");
    refused(&[f64::NAN, 0.0], "NaN lies outside");
    assert!(Schedule::new(ScheduleKind::Euler, 0, 3.0, 1000).is_err());
    assert!(Schedule::new(ScheduleKind::Euler, 5, 0.0, 1000).is_err());
    assert!(Schedule::new(ScheduleKind::UniPc, 5, 3.0, 1000).unwrap().skip(5).is_err());
}
