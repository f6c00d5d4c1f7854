//! Sagas that have ended, in lists, by id and by key: at hand, or in the journal alone.

use super::*;
use crate::journal::{Page, Place};

#[tokio::test]
async fn a_saga_that_is_no_longer_at_hand_is_found_in_the_journal() {
    let hotel = Service::willing().await;
    let plan = saga("", &[step("hotel", &hotel.url("/7"), "")]);
    let retain = Retain {
        sagas: 2,
        ..Retain::default()
    };
    let settings = Settings {
        retain,
        ..Settings::default()
    };
    let runner = runner_with(Memory::new(Default::default()), settings.clone());
    let mut ids = Vec::new();
    for key in ["a", "b", "c", "d"] {
        let handle = start(&runner, &plan, trigger("7", Some(key), "")).unwrap();
        ids.push(handle.id);
        reply(handle).await.unwrap();
    }
    runner.drain(PATIENCE).await;
    let mut held = Vec::new();
    runner.shared.registry.each_youngest(|entry| {
        held.push(entry.id);
        true
    });
    assert_eq!(held, [ids[3], ids[2]], "the youngest");
    let listed = |filter: &Filter, page: &Page| -> Vec<SagaId> {
        let sagas = runner.sagas(filter, page).unwrap();
        sagas.iter().map(|saga| saga.id).collect()
    };
    let all = Filter::default();
    assert_eq!(listed(&all, &Page::youngest(3)), [ids[3], ids[2], ids[1]]);
    let second = Page {
        after: Some(Place::Began(ids[1])),
        ..Page::youngest(3)
    };
    assert_eq!(listed(&all, &second), [ids[0]]);
    let there = Filter {
        states: vec![State::Committed, State::Stuck],
        name: Some(plan.0.name.clone()),
        upstream: Some("127.0.0.1".to_owned()),
        younger_than: Some(PATIENCE),
        ..Filter::default()
    };
    assert_eq!(listed(&there, &Page::youngest(9)).len(), 4);
    let elsewhere = [
        Filter {
            states: vec![State::Stuck],
            ..there.clone()
        },
        Filter {
            upstream: Some("hotel".to_owned()),
            ..there.clone()
        },
        Filter {
            older_than: Some(PATIENCE),
            ..there
        },
    ];
    for filter in elsewhere {
        assert!(listed(&filter, &Page::youngest(9)).is_empty(), "{filter:?}");
    }
    let found = runner.saga(ids[0]).unwrap().unwrap();
    assert_eq!(found.summary.state, State::Committed);
    assert!(!found.events.is_empty());

    let runner = Runner::new(
        Arc::clone(&runner.shared.journal),
        Upstream::new(Default::default()),
        settings,
    );
    for (key, id) in ["a", "d"].into_iter().zip([ids[0], ids[3]]) {
        let again = start(&runner, &plan, trigger("7", Some(key), "")).unwrap();
        assert_eq!((again.joined, again.id), (true, id));
        assert_eq!(reply(again).await.unwrap().status, 200);
        let other = start(&runner, &plan, trigger("8", Some(key), ""));
        assert!(matches!(other, Err(Refused::KeyReused)), "{other:?}");
    }
    assert_eq!(hotel.methods().len(), 4, "nothing is sent twice");
}
