//! Generated scripts of applies, updates and patches, in the sandbox's engine and in a real API server. `SCRIPTS` sets their number.

use std::sync::atomic::{AtomicUsize, Ordering};

use branchline::sandbox::fields::merge_patch;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Value, json};

use crate::support::twin::{DEPLOYMENTS, RULED, Twin, custom, define, definition, deployment};

/// One step of a generated script.
#[derive(Debug, Clone)]
enum Step {
    Apply {
        manager: &'static str,
        force: bool,
        spec: Value,
    },
    Update {
        manager: &'static str,
        spec: Value,
    },
    Patch {
        manager: &'static str,
        dialect: &'static str,
        spec: Value,
    },
}

/// Scripts of applies, updates and patches; `patch` makes what is patched, `spec` all else.
fn steps(dialect: &'static str, spec: BoxedStrategy<Value>, patch: BoxedStrategy<Value>) -> impl Strategy<Value = Vec<Step>> {
    let manager = || prop::sample::select(vec!["one", "two", "three"]);
    let step = prop_oneof![
        4 => (manager(), any::<bool>(), spec.clone()).prop_map(|(manager, force, spec)| Step::Apply { manager, force, spec }),
        1 => (manager(), spec).prop_map(|(manager, spec)| Step::Update { manager, spec }),
        1 => (manager(), patch).prop_map(move |(manager, spec)| Step::Patch { manager, dialect, spec }),
    ];
    prop::collection::vec(step, 3..10)
}

/// Some of these fields.
fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| (Just(name), prop::option::of(value)))
        .collect();
    fields
        .prop_map(|fields| {
            fields
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect()
        })
        .boxed()
}

/// A field that is always there.
fn with(object: BoxedStrategy<Value>, name: &'static str, value: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    (object, value)
        .prop_map(move |(mut object, value)| {
            object[name] = value;
            object
        })
        .boxed()
}

fn list(item: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    prop::collection::vec(item, 0..4).prop_map(Value::Array).boxed()
}

fn one_of(values: &[Value]) -> BoxedStrategy<Value> {
    prop::sample::select(values.to_vec()).boxed()
}

fn ruled_spec() -> BoxedStrategy<Value> {
    let letters = || one_of(&[json!("a"), json!("b"), json!("c"), json!("d")]);
    let digits = || one_of(&[json!(1), json!(9), json!(10)]);
    let deep = || object(vec![("k", list(letters())), ("l", list(letters()))]);
    let item = with(object(vec![("value", digits()), ("deep", deep())]), "port", digits());
    let free = object(vec![
        (
            "p",
            object(vec![
                ("q", letters()),
                ("r", list(digits())),
                ("s", object(vec![("t", digits())])),
            ]),
        ),
        (
            "q",
            one_of(&[json!(1), json!("x"), json!({}), json!({"y": 1}), json!([1]), json!([])]),
        ),
        ("known", object(vec![("x", letters())])),
    ]);
    object(vec![
        ("set", list(letters())),
        ("numbers", list(digits())),
        ("items", list(with(item, "name", letters()))),
        ("atom", object(vec![("a", letters()), ("b", letters())])),
        ("plain", list(object(vec![("a", letters())]))),
        ("inner", object(vec![("free", free)])),
    ])
}

/// Runs a script; steps that the real server refuses for reasons of its own are left out.
fn run(twin: &mut Twin, head: &Value, steps: Vec<Step>) {
    for step in steps {
        let mut object = head.clone();
        match step {
            Step::Apply { manager, force, spec } => {
                object["spec"] = spec;
                twin.apply_to("", manager, &object, force);
            }
            Step::Update { manager, spec } if twin.live.is_some() => twin.update(manager, "", |live| {
                live["spec"] = if head.get("spec").is_some() {
                    merge_patch(&live["spec"], &spec)
                } else {
                    spec
                };
            }),
            Step::Patch { manager, dialect, spec } if twin.live.is_some() => {
                twin.patch(manager, dialect, &json!({"spec": spec}));
            }
            _ => {}
        }
    }
}

#[test]
fn generated_scripts_for_a_custom_resource_come_out_equal() {
    let definition = definition("randoms", "Random", RULED);
    let serial = AtomicUsize::new(0);
    let collection = define(&definition);
    script_runner()
        .run(&steps("merge-patch", ruled_spec(), ruled_spec()), |steps| {
            let head = custom("Random", &format!("r{}", serial.fetch_add(1, Ordering::Relaxed)), "{}");
            let mut twin = Twin::custom(&collection, &definition, &head).tolerant();
            run(&mut twin, &head, steps);
            Ok(())
        })
        .unwrap();
}

/// A pod template's spec; its containers are made of `container`.
fn pod_spec(container: BoxedStrategy<Value>) -> Vec<(&'static str, BoxedStrategy<Value>)> {
    let letters = || one_of(&[json!("a"), json!("b"), json!("c")]);
    let volume = prop_oneof![
        Just(json!({"emptyDir": {}})),
        Just(json!({"emptyDir": {"medium": "Memory"}})),
        Just(json!({"configMap": {"name": "c", "optional": true}})),
        Just(json!({"projected": {"sources": [{"secret": {"name": "s"}}, {"configMap": {"name": "c"}}]}})),
    ];
    let toleration = object(vec![("key", letters()), ("effect", one_of(&[json!("NoSchedule")]))]);
    let alias = object(vec![("hostnames", list(letters()))]);
    let spread = with(
        object(vec![("maxSkew", one_of(&[json!(1), json!(2)]))]),
        "topologyKey",
        letters(),
    );
    vec![
        ("containers", list(container)),
        ("volumes", list(with(volume.boxed(), "name", letters()))),
        ("tolerations", list(with(toleration, "operator", one_of(&[json!("Exists")])))),
        ("nodeSelector", object(vec![("d", letters()), ("e", letters())])),
        ("imagePullSecrets", list(object(vec![("name", letters())]))),
        (
            "hostAliases",
            list(with(alias, "ip", one_of(&[json!("1.1.1.1"), json!("2.2.2.2")]))),
        ),
        (
            "topologySpreadConstraints",
            list(with(
                spread,
                "whenUnsatisfiable",
                one_of(&[json!("DoNotSchedule"), json!("ScheduleAnyway")]),
            )),
        ),
        ("terminationGracePeriodSeconds", one_of(&[json!(1), json!(30)])),
        (
            "securityContext",
            object(vec![
                ("runAsUser", one_of(&[json!(1), json!(2)])),
                ("supplementalGroups", list(one_of(&[json!(5)]))),
            ]),
        ),
    ]
}

fn container() -> BoxedStrategy<Value> {
    let letters = || one_of(&[json!("a"), json!("b"), json!("c")]);
    let port = object(vec![
        ("protocol", one_of(&[json!("TCP"), json!("UDP")])),
        ("hostIP", one_of(&[json!("1.1.1.1")])),
    ]);
    let from = object(vec![(
        "configMapKeyRef",
        one_of(&[json!({"name": "c", "key": "k"}), json!({"name": "d", "key": "k"})]),
    )]);
    let variable = prop_oneof![
        object(vec![("value", letters())]),
        with(Just(json!({})).boxed(), "valueFrom", from)
    ];
    let limits = || {
        object(vec![
            ("cpu", one_of(&[json!("1"), json!("2")])),
            ("memory", one_of(&[json!("1Gi")])),
        ])
    };
    let fields = object(vec![
        ("image", letters()),
        ("args", list(letters())),
        ("env", list(with(variable.boxed(), "name", letters()))),
        ("ports", list(with(port, "containerPort", one_of(&[json!(80), json!(443)])))),
        (
            "volumeMounts",
            list(with(
                object(vec![("name", letters())]),
                "mountPath",
                one_of(&[json!("/a"), json!("/b")]),
            )),
        ),
        ("resources", object(vec![("limits", limits()), ("requests", limits())])),
        (
            "readinessProbe",
            object(vec![(
                "httpGet",
                object(vec![("port", one_of(&[json!(80), json!("web")])), ("path", letters())]),
            )]),
        ),
    ]);
    with(fields, "name", letters())
}

fn deployment_spec(pod: Vec<(&'static str, BoxedStrategy<Value>)>) -> Vec<(&'static str, BoxedStrategy<Value>)> {
    let numbers = || one_of(&[json!(1), json!(2), json!(3)]);
    let rolling = object(vec![("maxSurge", one_of(&[json!(1), json!("50%")]))]);
    let labels = object(vec![("x", one_of(&[json!("1"), json!("2")])), ("z", one_of(&[json!("1")]))]);
    let template = object(vec![
        ("spec", object(pod)),
        ("metadata", object(vec![("labels", labels.clone()), ("annotations", labels)])),
    ]);
    vec![
        ("replicas", numbers()),
        ("minReadySeconds", numbers()),
        ("paused", one_of(&[json!(true), json!(false)])),
        (
            "strategy",
            object(vec![("rollingUpdate", rolling), ("type", one_of(&[json!("RollingUpdate")]))]),
        ),
        ("template", template),
    ]
}

/// The same with directives and nulls.
fn deployment_patch() -> BoxedStrategy<Value> {
    let letters = || one_of(&[json!("a"), json!("b"), json!("c")]);
    let null = || Just(Value::Null).boxed();
    let deletion = with(one_of(&[json!({"$patch": "delete"})]), "name", letters());
    let mut pod = pod_spec(prop_oneof![4 => container(), 1 => deletion, 1 => one_of(&[json!({"$patch": "replace"})])].boxed());
    for (_, field) in &mut pod {
        *field = prop_oneof![6 => field.clone(), 1 => null()].boxed();
    }
    pod.push((
        "$setElementOrder/volumes",
        one_of(&[json!([{"name": "c"}, {"name": "b"}, {"name": "a"}]), json!([{"name": "b"}])]),
    ));
    let mut spec = deployment_spec(pod);
    spec.push(("strategy", one_of(&[json!({"$retainKeys": ["type"], "type": "Recreate"})])));
    object(spec)
}

#[test]
fn generated_scripts_for_deployments_have_the_same_managers() {
    let serial = AtomicUsize::new(0);
    let spec = object(deployment_spec(pod_spec(container())));
    script_runner()
        .run(&steps("strategic-merge-patch", spec, deployment_patch()), |steps| {
            let name = format!("random{}", serial.fetch_add(1, Ordering::Relaxed));
            let base = deployment(
                &name,
                "{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: base, image: base}]}}}",
            );
            let mut twin = Twin::new(DEPLOYMENTS, &base).tolerant();
            assert!(twin.apply("base", &base));
            run(&mut twin, &deployment(&name, "{}"), steps);
            Ok(())
        })
        .unwrap();
}

/// The same scripts in every run.
fn script_runner() -> TestRunner {
    let cases = std::env::var("SCRIPTS")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(60);
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(3),
        ..Config::default()
    })
}
