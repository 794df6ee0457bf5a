"""The environment's fence, over HTTP: what powers a node off, and says whether it is off."""

import datetime
import json
import urllib.error
import urllib.request

from toast_evacuator.region import Failed, Power


class Endpoint:
    """The fence at a URL, for whoever has the secret."""

    def __init__(self, url: str, secret: str, limit: float = 30.0) -> None:
        self._url, self._secret, self._limit = url, secret, limit
        # Where a proxy is set, it is not for this network.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def off(self, host: str) -> Power:
        """Returns when the node is proved to be off. Raises Failed."""
        power = self._ask("POST", f"/nodes/{host}/off")
        if not power.off:
            raise Failed(f"{host} is {power.state} after it was powered off")
        return power

    def power(self, host: str) -> Power:
        """A node's state now. Raises Failed."""
        return self._ask("GET", f"/nodes/{host}")

    def _ask(self, method: str, path: str) -> Power:
        request = urllib.request.Request(self._url + path, method=method, headers={"Authorization": "Bearer " + self._secret})
        try:
            with self._opener.open(request, timeout=self._limit) as response:
                answer = json.load(response)
            return Power(answer["state"], datetime.datetime.fromisoformat(answer["seen"]).timestamp())
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {self._url}{path}: {error.code} {error.read(1000).decode(errors='replace').strip()}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failed(f"{method} {self._url}{path}: {error}") from error
