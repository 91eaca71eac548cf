//! The page is whole, and nothing of a file's text becomes markup.

use super::*;
use crate::check::{Input, Outside, Previous, check};
use crate::policy::Policy;

fn checked(text: &str, policy: &str, before: Option<&str>) -> Report {
    let policy = Policy::parse(policy).expect("a policy");
    let first = before.map(|before| {
        let input = Input {
            dataset: "d",
            file: "a.csv",
            digest: "sha256:0",
            origin: None,
            bytes: before.as_bytes(),
            policy_digest: "sha256:p",
        };
        check(&input, &policy, &Outside::NOTHING).report
    });
    let previous = before.zip(first.as_ref()).map(|(before, report)| Previous {
        digest: "sha256:0",
        file: "a.csv",
        bytes: Some(before.as_bytes()),
        report: Some(report),
    });
    let input = Input {
        dataset: "<d>",
        file: "a'\".csv",
        digest: "sha256:1",
        origin: Some("<script>alert(1)</script>"),
        bytes: text.as_bytes(),
        policy_digest: "sha256:p",
    };
    check(&input, &policy, &Outside { previous, ..Outside::NOTHING }).report
}

/// Every element that is opened is closed, in order.
fn check_markup(page: &str) {
    let mut open = Vec::new();
    let body = page.strip_prefix("<!DOCTYPE html>").expect("a page");
    for part in body.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("a tag ends");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{page}");
        } else if !tag.ends_with('/') && !tag.starts_with("meta") {
            open.push(tag.split(' ').next().expect("a name"));
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn nothing_of_a_file_becomes_markup() {
    let rows: String = (0..60).map(|row| format!("{row},<b>{},x\n", row % 3)).collect();
    let evil = format!("\"<img src=x onerror=alert(1)>\",\"&\"\"' onload=\",c\n{rows}900,<i>,\u{202e}y\n");
    let page = html(&checked(&evil, "label = \"c\"", None));
    check_markup(&page);
    for part in ["<img", "<b>", "<script", "onerror=alert(1)>", "\u{202e}"] {
        assert!(!page.contains(part), "{part}");
    }
    assert!(page.contains("&lt;img src=x"));
}

#[test]
fn every_part_is_drawn() {
    let text = |shift: usize| {
        let rows =
            (0..200).map(|row| format!("{},{},{}\n", row % 17 + shift, (row * 7) % 23, ["a", "b"][row % 2]));
        format!("x,y,label\n{}900,900,a\n", rows.collect::<String>())
    };
    let page = html(&checked(&text(9), "label = \"label\"", Some(&text(0))));
    check_markup(&page);
    for part in [
        "Drift against the previous data",
        "<polyline",
        "<circle class=\"o\"",
        "class=\"b\"",
        "share of each label",
        "DRIFT",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "coordinates are numbers");
    assert_eq!(page, html(&checked(&text(9), "label = \"label\"", Some(&text(0)))));
}

#[test]
fn a_refused_file_has_a_page_too() {
    let page = html(&checked("a,a\n1,2\n", "", None));
    check_markup(&page);
    assert!(page.contains("rejected") && page.contains("HEADER_DUPLICATE"));
}
