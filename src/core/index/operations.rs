//! JSON patches where they stand: what can be said of their operations without a document. Applies none of them.

use serde_json::Value;

/// The most operations of one patch; the API server's limit too (`JSONPatchMaxOperations`).
pub const MAX_OPERATIONS: usize = 10_000;

/// What is wrong with the operations of a patch, whatever it is applied to.
pub(super) fn problem(operations: &[Value]) -> Option<String> {
    if operations.len() > MAX_OPERATIONS {
        return Some(format!(
            "{} operations, at most {MAX_OPERATIONS} are carried out",
            operations.len()
        ));
    }
    let problems = operations.iter().enumerate();
    let mut problems = problems.filter_map(|(index, operation)| Some(format!("operation {index} {}", of_one(operation)?)));
    problems.next()
}

fn of_one(operation: &Value) -> Option<String> {
    let text = |field: &str| operation.get(field).and_then(Value::as_str);
    let Some(op) = text("op") else {
        return Some("has no \"op\"; it is add, remove, replace, move, copy or test".to_owned());
    };
    let paths: &[&str] = match op {
        "add" | "replace" | "remove" | "test" => &["path"],
        "move" | "copy" => &["path", "from"],
        other => {
            return Some(format!(
                "is unknown: {other:?} is none of add, remove, replace, move, copy and test"
            ));
        }
    };
    for field in paths {
        match text(field) {
            None => return Some(format!("({op}) has no {field:?}")),
            Some(path) if !path.is_empty() && !path.starts_with('/') => {
                return Some(format!("({op}): the {field} {path:?} does not begin with /"));
            }
            Some(_) => {}
        }
    }
    let needs_value = op == "add" || op == "replace";
    (needs_value && operation.get("value").is_none()).then(|| format!("({op}) has no \"value\""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(operation: Value, want: Option<&str>) {
        assert_eq!(problem(&[operation]).as_deref(), want);
    }

    #[test]
    fn an_operation_is_known_and_has_what_it_needs() {
        check(json!({"op": "add", "path": "", "value": null}), None);
        check(json!({"op": "test", "path": "/a"}), None);
        check(json!({"op": "move", "path": "/a", "from": "/b"}), None);
        check(
            json!({"op": "copy", "path": "/a"}),
            Some("operation 0 (copy) has no \"from\""),
        );
        check(
            json!({"op": "replace", "path": "/a"}),
            Some("operation 0 (replace) has no \"value\""),
        );
        check(json!({"op": "remove"}), Some("operation 0 (remove) has no \"path\""));
        check(
            json!({"op": "remove", "path": "a"}),
            Some("operation 0 (remove): the path \"a\" does not begin with /"),
        );
        for none in [json!("add"), json!({"path": "/a"}), json!({"op": 1, "path": "/a"})] {
            check(
                none,
                Some("operation 0 has no \"op\"; it is add, remove, replace, move, copy or test"),
            );
        }
        check(
            json!({"op": "repalce", "path": "/a"}),
            Some("operation 0 is unknown: \"repalce\" is none of add, remove, replace, move, copy and test"),
        );
    }

    #[test]
    fn there_is_a_most_number_of_operations() {
        let operation = json!({"op": "add", "path": "/a", "value": 1});
        assert_eq!(problem(&vec![operation.clone(); MAX_OPERATIONS]), None);
        let problem = problem(&vec![operation; MAX_OPERATIONS + 1]);
        assert_eq!(problem.as_deref(), Some("10001 operations, at most 10000 are carried out"));
    }
}
