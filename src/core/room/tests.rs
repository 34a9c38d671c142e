//! Nodes and pods as an API server gives them; what fits is held against placing one pod after the other.
#![expect(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A pod that asks nothing of its node.
const ANYWHERE: NodeRules = NodeRules {
    node_selector: BTreeMap::new(),
    node_selector_terms: None,
    tolerations: Vec::new(),
};

fn node(name: &str, cpu: &str, pods: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {
        "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": pods}, "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn pod(node: &str, cpu: &str) -> Value {
    json!({"spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": cpu}}}]}, "status": {"phase": "Running"}})
}

fn room(nodes: &[Value], pods: &[Value]) -> Room {
    let mut room = Room::default();
    for node in nodes {
        room.add_node(&serde_json::from_value(node.clone()).unwrap());
    }
    for pod in pods {
        room.add_pod(&serde_json::from_value(pod.clone()).unwrap());
    }
    room.settle()
}

fn requests(of: &[(&str, &str)]) -> Requests {
    let read = of.iter();
    read.map(|(name, text)| ((*name).to_owned(), Quantity::parse(text).unwrap()))
        .collect()
}

fn requests_of(pod: &Value) -> Requests {
    serde_json::from_value::<PodFacts>(pod.clone()).unwrap().requests()
}

#[test]
fn each_node_counts_by_itself() {
    let nodes = [node("a", "4", "110"), node("b", "2", "110")];
    let web = requests(&[("cpu", "1500m")]);
    assert_eq!(
        room(&nodes, &[]).fits(&web, &ANYWHERE),
        2 + 1,
        "halves of two nodes make no replica"
    );
    assert_eq!(room(&nodes, &[pod("a", "1"), pod("b", "1")]).fits(&web, &ANYWHERE), 2);
    assert_eq!(room(&nodes, &[pod("gone", "4")]).fits(&web, &ANYWHERE), 3);
    assert_eq!(room(&nodes, &[]).fits(&requests(&[("nvidia.com/gpu", "1")]), &ANYWHERE), 0);
}

#[test]
fn pod_slots_are_a_limit() {
    let full = [node("a", "64", "3")];
    assert_eq!(room(&full, &[pod("a", "0")]).fits(&requests(&[("cpu", "1")]), &ANYWHERE), 2);
    assert_eq!(room(&full, &[pod("a", "0")]).fits(&Requests::new(), &ANYWHERE), 2);
}

#[test]
fn nodes_that_take_no_pods_have_no_room() {
    let mut cordoned = node("a", "4", "110");
    cordoned["spec"] = json!({"unschedulable": true});
    let mut tainted = node("b", "4", "110");
    tainted["spec"] = json!({"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]});
    let mut unready = node("c", "4", "110");
    unready["status"]["conditions"][0]["status"] = json!("Unknown");
    let mut preferred = node("d", "4", "110");
    preferred["spec"] = json!({"taints": [{"key": "x", "effect": "PreferNoSchedule"}]});
    let room = room(&[cordoned, tainted, unready, preferred], &[]);
    assert_eq!(room.fits(&requests(&[("cpu", "1")]), &ANYWHERE), 4);
}

/// Nodes of one CPU each: two with labels, and three that keep pods out.
fn five_nodes() -> [Value; 5] {
    let mut nodes = ["plain", "gpu", "tainted", "evicting", "cordoned"].map(|name| node(name, "1", "110"));
    nodes[0]["metadata"]["labels"] = json!({"disk": "ssd", "cores": "8"});
    nodes[1]["metadata"]["labels"] = json!({"disk": "hdd", "cores": "64", "gpu": "a100"});
    nodes[2]["spec"] = json!({"taints": [{"key": "team", "value": "db", "effect": "NoSchedule"}]});
    nodes[3]["spec"] = json!({"taints": [{"key": "team", "value": "db", "effect": "NoExecute"}]});
    nodes[4]["spec"] =
        json!({"unschedulable": true, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
    nodes
}

#[test]
fn a_pod_is_counted_where_it_may_be() {
    let nodes = five_nodes();
    let required = |terms: Value| {
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []},
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    };
    let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let name = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu"]}]});
    let cases = [
        (json!({}), 2),
        (
            json!({"nodeSelector": null, "tolerations": null, "affinity": {"nodeAffinity": null}}),
            2,
        ),
        (json!({"nodeSelector": {"disk": "ssd"}}), 1),
        (json!({"nodeSelector": {"disk": "ssd", "gpu": "a100"}}), 0),
        (required(json!([expression("disk", "In", json!(["ssd", "nvme"]))])), 1),
        (required(json!([expression("disk", "NotIn", json!(["ssd"]))])), 1),
        (required(json!([expression("gpu", "Exists", json!([]))])), 1),
        (required(json!([expression("gpu", "DoesNotExist", json!([]))])), 1),
        (required(json!([expression("cores", "Gt", json!(["8"]))])), 1),
        (required(json!([expression("cores", "Lt", json!(["65"]))])), 2),
        (
            required(json!([
                expression("cores", "Lt", json!(["9"])),
                expression("gpu", "Exists", json!([]))
            ])),
            2,
        ),
        (required(json!([name])), 1),
        (required(json!([])), 0),
        (required(json!([{}])), 0),
        (required(json!([expression("disk", "Near", json!(["ssd"]))])), 0),
        (
            json!({"tolerations": [{"key": "team", "value": "db", "effect": "NoSchedule"}]}),
            3,
        ),
        (json!({"tolerations": [{"key": "team", "operator": "Exists"}]}), 4),
        (json!({"tolerations": [{"key": "team", "value": "web"}]}), 2),
        (
            json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}),
            3,
        ),
        (json!({"tolerations": [{"operator": "Exists"}]}), 5),
        (
            json!({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"gpu": "a100"}}),
            1,
        ),
    ];
    for (spec, want) in cases {
        let rules = NodeRules::read(&spec).unwrap();
        let all = room(&nodes, &[]);
        assert_eq!(all.fits(&requests(&[("cpu", "1")]), &rules), want, "{spec}");
        // A pod that waits takes its room where it may be, and only there.
        let mut waiting = pod("", "1");
        let stated = spec
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, value)| !value.to_string().contains("null"));
        stated.for_each(|(field, value)| waiting["spec"][field] = value.clone());
        let everywhere = NodeRules::read(&json!({"tolerations": [{"operator": "Exists"}]})).unwrap();
        assert_eq!(
            room(&nodes, &[waiting]).fits(&requests(&[("cpu", "1")]), &everywhere),
            5 - want.min(1),
            "{spec}"
        );
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let field = |spec: Value| NodeRules::read(&spec).unwrap_err().0;
    assert_eq!(field(json!({"nodeSelector": {"disk": 1}})), "/nodeSelector");
    assert_eq!(field(json!({"tolerations": {"key": "a"}})), "/tolerations");
    let terms = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": "all"}});
    assert_eq!(field(json!({"affinity": {"nodeAffinity": terms}})), "/affinity");
}

#[test]
fn pods_that_wait_for_a_node_come_first() {
    let nodes = [node("a", "4", "110")];
    assert_eq!(
        room(&nodes, &[pod("", "1"), pod("", "1")]).fits(&requests(&[("cpu", "1")]), &ANYWHERE),
        2
    );
    assert_eq!(
        room(&nodes, &[pod("", "9")]).fits(&requests(&[("cpu", "1")]), &ANYWHERE),
        4,
        "what fits nowhere takes nothing"
    );
}

#[test]
fn a_pod_requests_what_kubernetes_says() {
    let mut ended = pod("a", "4");
    ended["status"]["phase"] = json!("Succeeded");
    assert_eq!(
        room(&[node("a", "4", "110")], &[ended]).fits(&requests(&[("cpu", "1")]), &ANYWHERE),
        4
    );
    let container = |cpu: &str, policy: &str| json!({"resources": {"requests": {"cpu": cpu}}, "restartPolicy": policy});
    let mut pod = json!({"spec": {"containers": [container("1", ""), container("1", "")], "initContainers": [container("1", "Always"), container("4", "")],
        "overhead": {"cpu": "250m"}}});
    assert_eq!(
        requests_of(&pod),
        requests(&[("cpu", "5250m")]),
        "4 and the sidecar's 1 before it"
    );
    pod["spec"]["initContainers"] = json!([container("1", "Always")]);
    assert_eq!(requests_of(&pod), requests(&[("cpu", "3250m")]));
    pod["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
    assert_eq!(requests_of(&pod), requests(&[("cpu", "2250m")]));
}

#[test]
fn what_was_promised_is_taken_off_until_it_exists() {
    assert_eq!(more(10, Some(0), 4), 6);
    assert_eq!(more(10, Some(4), 4), 10);
    assert_eq!(more(10, Some(9), 4), 10, "a scale-down frees its room when it has happened");
    assert_eq!(more(3, Some(0), 4), 0);
    assert_eq!(more(10, None, 4), 10);
    assert_eq!(
        more(i64::MAX, Some(i64::MIN), i64::MAX),
        0,
        "nonsense of an agent overflows nothing"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_said_to_fit_fits_and_one_more_does_not(
        nodes in prop::collection::vec((1i64..20_000, 0i64..20), 0..6),
        pods in prop::collection::vec((0usize..7, 0i64..9_000), 0..20),
        request in 1i64..6_000,
    ) {
        let nodes: Vec<Value> = nodes.iter().enumerate().map(|(at, (cpu, slots))| node(&at.to_string(), &format!("{cpu}m"), &slots.to_string())).collect();
        let name = |at: usize| if at == 6 { String::new() } else { at.to_string() };
        let mut all: Vec<Value> = pods.iter().map(|(at, cpu)| pod(&name(*at), &format!("{cpu}m"))).collect();
        let want = requests(&[("cpu", &format!("{request}m"))]);
        let before = room(&nodes, &all);
        let count = before.fits(&want, &ANYWHERE);
        // Placing them one by one where they fit leaves no room.
        let mut left = before.clone();
        for _ in 0..count {
            let node = left.nodes.values_mut().find(|node| node.holds(&want) > 0);
            prop_assert!(node.is_some());
            node.unwrap().take(&want, 1);
        }
        prop_assert_eq!(left.fits(&want, &ANYWHERE), 0);
        all.reverse();
        prop_assert_eq!(room(&nodes, &all).fits(&want, &ANYWHERE), count, "the order of pods does not matter");
        if pods.iter().all(|(at, _)| *at < 6) {
            all.push(pod("0", "500m"));
            prop_assert!(room(&nodes, &all).fits(&want, &ANYWHERE) <= count, "a further pod makes no room");
        }
    }
}
