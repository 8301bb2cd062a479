import json

import pytest

from app.web.templating import data


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--", "a\u2028b", "ä & \"q\" 'r'"])
def test_no_text_ends_the_script_that_it_is_data_of(text: str) -> None:
    written = data({"text": text})
    assert "<" not in written
    assert json.loads(written) == {"text": text}
