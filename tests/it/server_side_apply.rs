//! Server-side apply, updates and patches by script, in the sandbox's engine and in a real API server.

use serde_json::json;

use crate::support::twin::{DEPLOYMENTS, RULED, Twin, custom, define, definition, deployment, yaml};

#[test]
fn deployments_change_hands_as_in_a_cluster() {
    let full = deployment(
        "hands",
        "{replicas: 2, selector: {matchLabels: {a: b}}, strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}, template: {metadata: \
         {labels: {a: b}}, spec: {containers: [{name: web, image: 'web:1', ports: [{containerPort: 80}], env: [{name: A, value: a}, {name: B, \
         valueFrom: {configMapKeyRef: {name: c, key: k}}}], resources: {limits: {cpu: '1'}}}, {name: side, image: 'side:1'}], volumes: [{name: v, \
         emptyDir: {}}], tolerations: [{key: t, operator: Exists}], nodeSelector: {disk: ssd}}}}",
    );
    let mut twin = Twin::new(DEPLOYMENTS, &full);
    assert!(twin.apply("branchline", &full));
    assert!(twin.apply("branchline", &full));
    assert!(!twin.apply("other", &deployment("hands", "{replicas: 3}")));
    assert!(twin.apply("other", &deployment("hands", "{replicas: 2, paused: true}")));
    twin.force("other", &deployment("hands", "{replicas: 4}"));
    let several = deployment(
        "hands",
        "{replicas: 9, template: {spec: {containers: [{name: web, image: 'web:2'}]}}}",
    );
    assert!(!twin.apply("third", &several));
    twin.update("kubectl-edit", "", |object| {
        object["spec"]["template"]["spec"]["containers"][1]["image"] = json!("side:2");
        object["metadata"]["labels"] = json!({"x": "y"});
    });
    assert!(!twin.apply("branchline", &full));
    twin.update("controller", "status", |object| {
        object["status"] =
            json!({"observedGeneration": 1, "replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    });
    twin.patch("kubectl-patch", "strategic-merge-patch", &json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "new"}, {"name": "web"}],
        "containers": [{"name": "new", "image": "new:1", "ports": [{"containerPort": 1}]}, {"name": "side", "$patch": "delete"}],
        "volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/v"}}],
    }}}}));
    twin.patch(
        "kubectl-patch",
        "merge-patch",
        &json!({"metadata": {"annotations": {"n": "m"}}, "spec": {"paused": null}}),
    );
    twin.patch(
        "jsonpatch",
        "json-patch",
        &json!([{"op": "add", "path": "/spec/template/spec/containers/0/env", "value": [{"name": "X"}]}]),
    );
    let less = deployment(
        "hands",
        "{replicas: 4, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: 'web:1'}]}}}",
    );
    twin.force("branchline", &less);
    twin.update("resetter", "", |object| object["metadata"]["managedFields"] = json!([{}]));
    twin.force("branchline", &less);
}

#[test]
fn a_create_records_what_the_server_stores() {
    let object = deployment(
        "created",
        "{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: web, ports: \
         [{containerPort: 80}, {containerPort: 81, protocol: UDP}]}], imagePullSecrets: [{name: s}]}}}",
    );
    let mut twin = Twin::new(DEPLOYMENTS, &object);
    twin.create("kubectl-create", &object);
    assert!(!twin.apply("branchline", &deployment("created", "{replicas: 5}")));
    twin.update("kubectl-edit", "", |object| {
        object["spec"]["template"]["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": "http"}});
    });

    let object = yaml(
        "{apiVersion: v1, kind: Service, metadata: {name: created, finalizers: [a/b], annotations: {}}, spec: {ports: [{port: 80, \
                       targetPort: web}, {name: u, port: 80, protocol: UDP}], selector: {a: b}}}",
    );
    let mut object = object;
    object["spec"]["ports"][0]["name"] = json!("w");
    let mut twin = Twin::new("/api/v1/namespaces/default/services", &object);
    twin.create("kubectl-create", &object);
    let mut applied = object.clone();
    applied["spec"]["ports"] = json!([{"port": 80, "name": "w", "targetPort": 8080}]);
    twin.force("branchline", &applied);
    assert!(twin.apply(
        "other",
        &yaml("{apiVersion: v1, kind: Service, metadata: {name: created, finalizers: [c/d]}}")
    ));
    twin.force(
        "branchline",
        &yaml("{apiVersion: v1, kind: Service, metadata: {name: created}, spec: {ports: [{port: 443, name: s}]}}"),
    );
}

#[test]
fn kinds_without_defaults_come_out_equal() {
    let map = |rest: &str| {
        yaml(&format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: equal, labels: {{a: b}}}}, {rest}}}"
        ))
    };
    let mut twin = Twin::new("/api/v1/namespaces/default/configmaps", &map("data: {}")).exact();
    assert!(twin.apply("one", &map("data: {x: '1', y: '2'}")));
    assert!(twin.apply("two", &map("data: {y: '2', z: '3'}")));
    assert!(twin.apply("one", &map("data: {x: '1'}")));
    assert!(!twin.apply("one", &map("data: {z: '4'}")));
    assert!(twin.apply("two", &yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: equal}}")));
    assert!(twin.apply("one", &yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: equal}}")));

    let role = |rules: &str| {
        yaml(&format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: equal}}, rules: {rules}}}"
        ))
    };
    let rule = "{apiGroups: [''], resources: [pods], verbs: [get]}";
    let mut twin = Twin::new("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role("[]")).exact();
    assert!(twin.apply("one", &role(&format!("[{rule}]"))));
    assert!(!twin.apply("two", &role(&format!("[{rule}, {rule}]"))));
    twin.force("two", &role(&format!("[{rule}, {rule}]")));
}

#[test]
fn refusals_have_the_words_of_kubernetes() {
    let mut twin = Twin::new(DEPLOYMENTS, &deployment("refused", "{}"));
    for spec in [
        "{replica: 3}",
        "{replicas: two}",
        "{paused: 1}",
        "{template: {spec: {containers: [{name: a}, {name: a}]}}}",
        "{template: {spec: {topologySpreadConstraints: [null]}}}",
        "{template: {spec: {containers: {name: a}}}}",
        "{template: {spec: {nodeName: 1}}}",
        "{selector: [a]}",
    ] {
        assert!(!twin.apply("me", &deployment("refused", spec)), "{spec}");
    }
    let mut managed = deployment("refused", "{}");
    managed["metadata"]["managedFields"] = json!([]);
    assert!(!twin.apply("me", &managed));
}

#[test]
fn kubectl_takes_over_its_own_annotation() {
    let mut object = yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: noted}, data: {x: '1', y: '1'}}");
    let mut twin = Twin::new("/api/v1/namespaces/default/configmaps", &object).exact();
    let note = object.to_string();
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": note});
    twin.create("kubectl-client-side-apply", &object);
    twin.update("editor", "", |object| object["data"]["y"] = json!("2"));
    let next = yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: noted}, data: {x: '2'}}");
    assert!(twin.apply("kubectl", &next));
    let next = yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: noted}, data: {x: '3', y: '3'}}");
    assert!(!twin.apply("kubectl", &next));
}

#[test]
fn custom_resources_without_a_schema_are_deduced() {
    let free = "{type: object, x-kubernetes-preserve-unknown-fields: true}";
    let definition = definition("frees", "Free", free);
    let free = |spec: &str| custom("Free", "f", spec);
    let mut twin = Twin::custom(&define(&definition), &definition, &free("{}"));
    assert!(twin.apply(
        "one",
        &free("{list: [1, 2], map: {x: 1, y: {z: [a]}}, empty: {}, none: null, text: t}")
    ));
    assert!(twin.apply(
        "one",
        &free("{list: [1, 2], map: {x: 1, y: {z: [a]}}, empty: {}, none: null, text: t}")
    ));
    assert!(twin.apply("two", &free("{map: {w: 1, y: {q: 2}}}")));
    assert!(!twin.apply("two", &free("{map: {y: {z: [b]}}, list: [3]}")));
    twin.force("two", &free("{map: {y: {z: [b]}}, list: {now: map}}"));
    twin.update("editor", "", |object| object["spec"]["map"]["new"] = json!({"a": {"b": []}}));
    twin.patch(
        "editor",
        "merge-patch",
        &json!({"spec": {"map": {"x": null, "new": {"a": 1}}}}),
    );
    twin.update("controller", "status", |object| {
        object["status"] = json!({"conditions": [{"type": "Ready"}], "n": 1});
        object["spec"]["text"] = json!("ignored");
    });
    assert!(twin.apply("one", &free("{text: t}")));
    assert!(twin.apply("two", &free("{}")));
}

#[test]
fn custom_resources_merge_as_their_schema_says() {
    let definition = definition("ruleds", "Ruled", RULED);
    let ruled = |spec: &str| custom("Ruled", "r", spec);
    let mut twin = Twin::custom(&define(&definition), &definition, &ruled("{}"));
    assert!(twin.apply("one", &ruled("{set: [a, b], numbers: [10, 9], items: [{name: x, port: 80, value: 1}, {name: x, port: 81}], atom: {a: a}, plain: [{a: b}]}")));
    assert!(twin.apply("two", &ruled("{set: [c, a], numbers: [1, 10], items: [{name: w, port: 80}, {name: x, port: 80, deep: {k: [v]}}], inner: {free: {known: {x: w}, q: {r: s}}}}")));
    assert!(!twin.apply(
        "two",
        &ruled("{set: [c], atom: {b: b}, items: [{name: x, port: 80, value: '2'}], plain: []}")
    ));
    twin.force(
        "two",
        &ruled("{set: [c], atom: {b: b}, items: [{name: x, port: 80, value: '2'}], when: '2020-01-01T00:00:00Z'}"),
    );
    twin.update("editor", "", |object| object["spec"]["items"][0]["value"] = json!(3));
    assert!(twin.apply("one", &ruled("{set: [a], items: [{name: x, port: 81}], inner: {}}")));
    assert!(twin.apply("two", &ruled("{}")));
    for wrong in [
        "{unknown: 1}",
        "{set: [a, a]}",
        "{items: [{port: 1}, {port: 1}]}",
        "{atom: {c: c}}",
        "{set: [{a: b}]}",
    ] {
        assert!(!twin.apply("three", &ruled(wrong)), "{wrong}");
    }
}
