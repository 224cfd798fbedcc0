//! Pages: everything once, in order, with the revision and the floor that belong to it.

use api::object::Revision;
use store::Store;
use store::document::{Filter, LabelTest};

use crate::{Engine, Place, fresh, object, put};

crate::on_both! {
    pages_give_everything_once_and_in_order
    a_page_is_of_its_namespace_and_labels
    a_page_says_how_far_back_the_feed_reaches
}

/// Names of all pages of a size, one text a page.
async fn pages(store: &Store, filter: &Filter, size: usize) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None::<(String, String)>);
    loop {
        let place = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let page = store.page("Policy", filter, place, size).await.unwrap();
        let names: Vec<&str> = page.objects.iter().map(|object| object.metadata.name.as_str()).collect();
        found.push(names.join(" "));
        let Some(last) = page.objects.last().filter(|_| page.more) else { return found };
        after = Some((last.metadata.namespace.clone(), last.metadata.name.clone()));
    }
}

async fn pages_give_everything_once_and_in_order(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    assert_eq!(pages(&store, &Filter::default(), 2).await, [""]);
    // In the order of bytes, whatever the database's language: `-` before letters, `/a-b` before `/a/b`.
    for (namespace, name) in
        [("/b", "a"), ("/a", "b"), ("/a", "a-1"), ("/a", "a1"), ("/a/b", "c"), ("/a-b", "d"), ("/", "z")]
    {
        put(&store, &object("Policy", namespace, name, 1)).await;
    }
    put(&store, &object("Service", "/a", "other", 1)).await;
    assert_eq!(pages(&store, &Filter::default(), 3).await, ["z a-1 a1", "b d c", "a"]);
    assert_eq!(pages(&store, &Filter::default(), 7).await, ["z a-1 a1 b d c a"]);
    // A place does not have to exist.
    let page = store.page("Policy", &Filter::default(), Some(("/a", "a-2")), 1).await.unwrap();
    assert_eq!((page.objects[0].metadata.name.as_str(), page.more, page.revision), ("a1", true, Revision(8)));
}

async fn a_page_is_of_its_namespace_and_labels(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    for (namespace, name, team) in [("/a", "p", "x"), ("/a", "q", "y"), ("/a/b", "r", "x"), ("/ab", "s", "x")] {
        let mut object = object("Policy", namespace, name, 1);
        object.metadata.labels.insert("team".into(), team.into());
        put(&store, &object).await;
    }
    let below_a = Filter { namespace: Some("/a".into()), subtree: true, ..Filter::default() };
    assert_eq!(pages(&store, &below_a, 2).await, ["p q", "r"]);
    let in_a = Filter { subtree: false, ..below_a.clone() };
    assert_eq!(pages(&store, &in_a, 9).await, ["p q"]);
    let team_x = Filter { labels: vec![LabelTest::In("team".into(), vec!["x".into()])], ..below_a };
    assert_eq!(pages(&store, &team_x, 1).await, ["p", "r"]);
}

async fn a_page_says_how_far_back_the_feed_reaches(engine: Engine) {
    let place = Place::new(engine);
    let store = Store::open_keeping(&place.url(), 10).await.unwrap();
    assert_eq!(store.page("Policy", &Filter::default(), None, 1).await.unwrap().floor, Revision(0));
    for value in 0..40 {
        put(&store, &object("Policy", "/a", "x", value)).await;
    }
    let page = store.page("Policy", &Filter::default(), None, 1).await.unwrap();
    assert_eq!((page.revision, page.objects.len()), (Revision(40), 1));
    assert!(store.watch(page.floor).try_next().await.unwrap().is_some());
    assert!(page.floor > Revision(20) && store.watch(Revision(page.floor.0 - 1)).try_next().await.is_err());
}
