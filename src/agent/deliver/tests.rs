//! What the deliverer holds on to.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::cluster::Access;
use crate::core::tree::write_git_tree;

fn object(kind: ObjectKind, content: Vec<u8>) -> ContentObject {
    let id = ObjectId::hash(kind, &content);
    let content = content.into();
    ContentObject { id, kind, content }
}

/// An offer of one ConfigMap, with everything in it.
fn offer(generation: u64) -> (Target, Vec<ContentObject>) {
    let manifest = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{content: \"{generation}\"}}\n");
    let manifest = object(ObjectKind::Blob, manifest.into_bytes());
    let manifests = object(ObjectKind::Tree, write_git_tree([("configmap_a.yaml", false, manifest.id)]));
    let description = object(ObjectKind::Blob, b"deployer: Generic\nfeeds: []\n".to_vec());
    let entries = [("description.yaml", false, description.id), ("manifests", true, manifests.id)];
    let sub = object(ObjectKind::Tree, write_git_tree(entries));
    let root = object(ObjectKind::Tree, write_git_tree([("shop.web", true, sub.id)]));
    let target = Target {
        epoch: 1,
        generation,
        tree: root.id,
    };
    (target, vec![root, sub, manifests, description, manifest])
}

#[tokio::test]
async fn offers_that_cannot_be_carried_out_do_not_pile_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    let nobody = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                  contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n";
    std::fs::write(&path, nobody).unwrap();
    let access = Access::Kubeconfig { path, context: None };
    let cluster = Cluster::connect(&access).await.unwrap();
    let (mut deliverer, _standing) = Deliverer::new(cluster, Arc::default());
    let (_sender, mut deliveries) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let [first, second] = [1, 2].map(offer);
    let trees = [first.0.tree, second.0.tree];
    for (target, objects) in [first, second] {
        deliverer.take_offer(target, objects);
        deliverer.work(&mut deliveries, &stop).await;
        assert!(deliverer.retry.is_some(), "the API server does not answer");
    }
    let laid = trees.map(|tree| lay_out(tree, &deliverer.contents, &Inventory::default()));
    assert!(matches!(&laid, [Laid::Missing(_), Laid::Complete(_)]), "{laid:?}");
}
