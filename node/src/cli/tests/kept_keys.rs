//! What stays of the keys that `unhidra enroll` made, where it does not come to its end.

use super::*;
use crate::control::RemoteControl;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_keys_of_a_device_that_is_enrolled_stay_though_its_certificate_is_not_written() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    let out = ground.folder.path().join("pump-7");
    let line = format!("enroll pump-7 --out {}", out.display());
    ground.store.stall();
    let (refused, ()) = tokio::join!(refusal(&control, &line), async {
        std::fs::create_dir(out.join("cert.pem")).unwrap();
        ground.store.resume();
    });
    assert_eq!(names(&out), ["cert.pem", "identity.key", "key.pem"]);
    let seed = crate::keys::load(&out.join("identity.key")).unwrap();
    let identity = unhidra_bridge::IdentitySecret::from_seed(seed.as_bytes());
    assert_eq!(control.device(id("pump-7")).await.unwrap().identity_key.0, *identity.public().as_bytes());
    for said in ["cert.pem: ", "pump-7 is enrolled", "unhidra enroll pump-7 --replace"] {
        assert!(refused.contains(said), "{refused}");
    }
}

#[tokio::test]
async fn the_keys_stay_where_nobody_knows_whether_the_device_is_enrolled() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    let out = |name: &str| ground.folder.path().join(name);
    ground.store.stall();
    let line = format!("enroll pump-7 --out {}", out("dropped").display());
    let mut enrolling = Box::pin(printed(&control, &line));
    // Asked once, so that the node has the question, and dropped.
    let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(enrolling.as_mut().poll(cx).is_pending()));
    assert!(pending.await);
    drop(enrolling);
    assert_eq!(names(&out("dropped")), ["identity.key", "key.pem"]);

    ground.store.resume();
    ground.store.close().await;
    let refused = refusal(&control, &format!("enroll pump-8 --out {}", out("closed").display())).await;
    assert!(refused.contains("pump-8 may be enrolled") && refused.contains("unhidra device show pump-8"), "{refused}");
    assert_eq!(names(&out("closed")), ["identity.key", "key.pem"]);
}

#[tokio::test]
async fn nothing_stays_where_nothing_can_have_been_enrolled() {
    let ground = Ground::new();
    let out = ground.folder.path().join("new/pump-7");
    let line = format!("enroll pump-7 --out {}", out.display());
    let refused = refusal(&ground.keyless().await, &line).await;
    assert!(refused.contains("set pki.ca_key") && !refused.contains("may be"), "{refused}");
    assert!(!out.exists());
    let nobody = RemoteControl::new(&ground.folder.path().join("no.sock"));
    let refused = refusal(&nobody, &line).await;
    assert!(refused.contains("cannot be asked") && !refused.contains("may be"), "{refused}");
    assert!(!out.exists());
    // What was refused goes the same way once it can.
    printed(&ground.control(None).await, &line).await.unwrap();
}
