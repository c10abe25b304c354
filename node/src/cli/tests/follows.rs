//! Commands as they change.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn more_commands_than_can_be_followed_are_refused_and_not_left_out() {
    let place = Place::new();
    let node = place.start().await;
    let reached = place.reach(Missing::Refuse).await.unwrap();
    reached.control().enroll(enroll_asked("pump-7")).await.unwrap();
    let client = watch::through(&reached).await.unwrap();
    let Some(Command::Commands(asked)) = parse("commands pump-7 --follow --newest 257").unwrap().command else {
        panic!("commands")
    };
    let mut text = Vec::new();
    let mut out = Output::new(false, &mut text);
    let followed = commands::follow(&asked, client, &mut out);
    let ended = tokio::time::timeout(Duration::from_secs(5), followed).await.expect("it is refused at once");
    let error = ended.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(error.to_string().contains("the newest 256"), "{error}");
    node.stop().await;
}
