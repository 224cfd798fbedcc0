//! What a user may rely on, case by case.

use super::check;

#[test]
fn a_fresh_fleet_observes_and_allows() {
    check(
        "
        workload web /shop app=web
        workload db /shop app=db
        web -> db tcp/5432 => allow | allow default | allow default
    ",
    );
}

#[test]
fn one_policy_in_the_shared_namespace_is_enough() {
    check(
        "
        posture / enforce ingress=deny egress=deny
        workload web /shop app=web
        workload db /shop/data app=db
        workload cron /shop app=cron
        policy /shop:web-to-db allow | app=web | app=db | tcp/5432
        web -> db tcp/5432 => allow | allow /shop:web-to-db | allow /shop:web-to-db
        web -> db tcp/22 => deny default-deny | deny default | deny default
        web -> db udp/5432 => deny default-deny | deny default | deny default
        cron -> db tcp/5432 => deny default-deny | deny default | deny default
        db -> web tcp/5432 => deny default-deny | deny default | deny default
        web -> db icmp => deny icmp-deny | deny default | deny default
    ",
    );
}

#[test]
fn a_label_does_not_let_a_stranger_in() {
    check(
        "
        posture / enforce ingress=deny egress=allow
        workload web /shop app=web
        workload thief /evil app=web
        workload db /shop app=db
        policy /shop:web-to-db allow | app=web | app=db | tcp/5432
        thief -> db tcp/5432 => deny default-deny | allow default | deny default
        web -> db tcp/5432 => allow | allow /shop:web-to-db | allow /shop:web-to-db
    ",
    );
}

#[test]
fn across_tenants_each_side_consents() {
    check(
        "
        posture / enforce ingress=deny egress=deny
        workload web /shop app=web
        workload api /pay app=api
        policy /shop:out allow | app=web | @namespace=/pay, app=api | tcp/443
        web -> api tcp/443 => deny default-deny | allow /shop:out | deny default
        policy /pay:in allow | @namespace=/shop/** | app=api | tcp/443
        web -> api tcp/443 => allow | allow /shop:out | allow /pay:in
    ",
    );
}

#[test]
fn nobody_opens_somebody_elses_door() {
    check(
        "
        posture / enforce ingress=deny egress=deny
        workload thief /evil app=thief
        workload db /shop app=db
        policy /evil:let-me-in allow | @namespace=/** | @namespace=/** | any
        thief -> db tcp/5432 => deny default-deny | allow /evil:let-me-in | deny default
    ",
    );
}

#[test]
fn deny_wins_over_allow_wherever_it_stands() {
    check(
        "
        posture / enforce ingress=deny egress=deny
        workload web /acme/shop app=web
        workload db /acme/shop app=db
        policy /acme/shop:a-allow allow | any | any | any
        policy /acme:b-deny deny | app=web | app=db | tcp/5000-6000
        web -> db tcp/5432 => deny policy-deny | deny /acme:b-deny | deny /acme:b-deny
        web -> db tcp/80 => allow | allow /acme/shop:a-allow | allow /acme/shop:a-allow
        policy /acme:b-deny deny | app=nobody | any | any
        policy /acme/shop:c-deny deny | app=web | any | tcp/80
        web -> db tcp/80 => deny policy-deny | deny /acme/shop:c-deny | deny /acme/shop:c-deny
    ",
    );
}

#[test]
fn each_side_uses_its_own_mode() {
    check(
        "
        posture /old observe ingress=deny egress=deny
        posture /new enforce ingress=deny egress=deny
        workload old /old
        workload new /new
        policy /new:out allow | any | @namespace=/old | any
        old -> new tcp/1 => deny default-deny | deny default | deny default
        new -> old tcp/1 => allow (would deny default-deny) | allow /new:out | deny default
    ",
    );
}

#[test]
fn an_observing_policy_never_changes_a_verdict() {
    check("
        posture / enforce ingress=deny egress=allow
        workload web /shop app=web
        workload db /shop app=db
        policy /shop:try allow observe | app=web | app=db | tcp/5432
        web -> db tcp/5432 => deny default-deny | allow default (/shop:try would allow) | deny default (/shop:try would allow)
        policy /shop:real allow | app=web | app=db | tcp/5432
        web -> db tcp/5432 => allow | allow /shop:real | allow /shop:real
        policy /shop:ban deny observe | app=web | any | any
        web -> db tcp/5432 => allow | allow /shop:real (/shop:ban would deny) | allow /shop:real (/shop:ban would deny)
    ");
}

#[test]
fn external_ends_are_let_in_by_name_only() {
    check(
        "
        posture / enforce ingress=deny egress=deny
        workload web /acme/shop app=web
        external stripe /acme:stripe
        external nobody
        policy /acme/shop:any allow | any | any | any
        policy /acme/shop:negative allow | !app | app!=db | any
        stripe -> web tcp/443 => deny external-deny | - | deny default
        web -> stripe tcp/443 => deny external-deny | deny default | -
        policy /acme/shop:pay allow | app=web | @external=stripe | tcp/443
        web -> stripe tcp/443 => allow | allow /acme/shop:pay | -
        web -> stripe tcp/80 => deny external-deny | deny default | -
        web -> nobody tcp/443 => deny external-deny | deny default | -
        policy /acme/shop:hook allow | @external=/acme:stripe | app=web | tcp/8443
        stripe -> web tcp/8443 => allow | - | allow /acme/shop:hook
        stripe -> nobody tcp/1 => deny external-deny | - | -
    ",
    );
}

#[test]
fn any_covers_protocols_without_ports() {
    check(
        "
        posture / enforce ingress=deny egress=deny
        workload a /x
        policy /x:all allow | any | any | any
        policy /x:no-tcp deny | any | any | tcp
        a -> a any => allow | allow /x:all | allow /x:all
        a -> a udp/53 => allow | allow /x:all | allow /x:all
        a -> a icmp => allow | allow /x:all | allow /x:all
        a -> a tcp/1 => deny policy-deny | deny /x:no-tcp | deny /x:no-tcp
    ",
    );
}

#[test]
fn a_list_of_selectors_is_or() {
    check(
        "
        posture / enforce ingress=deny egress=allow
        workload a /x app=a
        workload b /x app=b
        workload c /x app=c
        policy /x:in allow | app=a ; app=b | any | any
        a -> c tcp/1 => allow | allow /x:in | allow /x:in
        b -> c tcp/1 => allow | allow /x:in | allow /x:in
        c -> a tcp/1 => deny default-deny | allow default | deny default
    ",
    );
}
