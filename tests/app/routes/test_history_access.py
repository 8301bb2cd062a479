"""Who may see what of the history: a table of routes and roles, and the categories of a key."""

from tests.app.conftest import Keyed
from tests.app.routes.pages.rows import add, answered

# "limited" is an administrator's key of category tiny alone.
READERS = {"viewer", "inspector", "operator", "admin", "limited"}
ANYBODY = {"line", *READERS}
OF_ALL = {"viewer", "inspector", "operator", "admin"}
REVIEW = {"verdict": "good", "expected_revision": 9}  # a conflict, so that nothing is changed
ALLOWED = {
    "/v1/inspections?category=other": OF_ALL,
    "/v1/inspections.ndjson?category=other": OF_ALL,
    "/v1/inspections.csv?category=other": OF_ALL,
    "/v1/parts/P": ANYBODY,
    "/v1/inspections/TINY/reviews": READERS,
    "/v1/inspections/OTHER/reviews": OF_ALL,
    "POST /v1/inspections/TINY/reviews": READERS - {"viewer"},
    "POST /v1/inspections/OTHER/reviews": OF_ALL - {"viewer"},
    **{f"/v1/inspections/TINY{name}": ANYBODY for name in ("", "/overlay.png", "/source", "/map.npy")},
    **{f"/v1/inspections/OTHER{name}": {"line", *OF_ALL} for name in ("", "/heatmap.png", "/source")},
    **dict.fromkeys(("/scores", "/report", "/wall/counts"), READERS),
    **dict.fromkeys(("/scores?category=other", "/wall/counts?category=other"), OF_ALL),
    **{f"/inspections/OTHER{name}": {"line", *OF_ALL} for name in ("", "/thumbnail.jpg")},
    **{f"/models/other{name}": {"line", *OF_ALL} for name in ("", "/versions/v1")},
    "/products": ANYBODY,
    "/products/tiny": READERS,
    "/products/other": OF_ALL,
    "/inspect": ANYBODY - {"viewer"},
    "/audit": READERS - {"viewer"},
}


def test_a_key_sees_what_its_role_and_its_categories_allow(keyed: Keyed) -> None:
    rows = (answered(category=category, part_id="P") for category in ("tiny", "other"))
    tiny, other = add(keyed.database, *rows)
    for request, allowed in ALLOWED.items():
        *_, path = request.replace("TINY", tiny).replace("OTHER", other).split()
        method, body = ("POST", REVIEW) if request.startswith("POST") else ("GET", None)
        for role in keyed.keys:
            for headers in ({}, {"If-None-Match": "*"}):
                shown = {**keyed.show(role), **headers}
                response = keyed.client.request(method, path, json=body, headers=shown)
                assert (response.status_code != 403) is (role in allowed), (request, role)
        assert keyed.client.request(method, path, json=body).status_code == 401, request
