"""Nova's API, as far as it is needed."""

from typing import Any

from keystoneauth1 import adapter, exceptions, loading, session

from toast_evacuator.region import Failed, Gone, Refused, Server

LIMIT = 30.0  # seconds one call may take


class API:
    """A session as a user of role admin. With forced_down the API is one of microversion 2.53; without, it may be Kilo's."""

    def __init__(self, options: dict[str, str], forced_down: bool) -> None:
        options = dict(options)
        region, kind = options.pop("region_name"), options.pop("auth_type")
        auth: Any = loading.get_plugin_loader(kind).load_from_options(**options)
        self.forced_down = forced_down
        self._api = adapter.Adapter(
            session.Session(auth, timeout=LIMIT),
            service_type="compute",
            interface="internal",
            region_name=region,
            default_microversion="2.53" if forced_down else None,
        )

    def force_down(self, host: str, down: bool) -> None:
        """Nova takes the compute for dead at once, or no longer."""
        for service in self._services(host):
            self._call("PUT", f"/os-services/{service['id']}", {"forced_down": down})

    def is_down(self, host: str) -> bool:
        """Nova's own verdict: report_interval and service_down_time of nova.conf."""
        return all(service["state"] == "down" for service in self._services(host))

    def servers(self, host: str) -> list[Server]:
        """All that are on a compute, whosever they are."""
        found: list[Server] = []
        query = {"host": host, "all_tenants": "1", "limit": "1000"}
        while True:
            page = [server(raw) for raw in self._call("GET", "/servers/detail", params=query)["servers"]]
            if not page:
                return found
            found += page
            query["marker"] = page[-1].id

    def server(self, id: str) -> Server:
        """Raises Gone, too."""
        return server(self._call("GET", f"/servers/{id}")["server"])

    def evacuate(self, id: str) -> None:
        """Asks for it: Nova's scheduler says where to. Its disks are on the NAS. Raises Refused, too."""
        self._call("POST", f"/servers/{id}/action", {"evacuate": {} if self.forced_down else {"onSharedStorage": True}})

    def _services(self, host: str) -> list[dict[str, Any]]:
        services: list[dict[str, Any]] = self._call("GET", "/os-services", params={"binary": "nova-compute", "host": host})["services"]
        if not services:
            raise Failed(f"there is no nova-compute on {host}")
        return services

    def _call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        if body is not None:
            options["json"] = body
        try:
            answer = self._api.request(path, method, **options)
            return answer.json() if answer.content and "json" in answer.headers.get("Content-Type", "") else None
        except exceptions.NotFound as error:
            if path.startswith("/servers/"):
                raise Gone(str(error)) from error
            raise Failed(f"{method} {path}: {error}") from error
        except exceptions.HTTPClientError as error:
            raise Refused(f"{method} {path}: {said(error)}") from error
        except (exceptions.ClientException, ValueError) as error:
            raise Failed(f"{method} {path}: {error}") from error


def server(raw: dict[str, Any]) -> Server:
    """An instance of Nova's own answer, to an admin."""
    return Server(
        id=raw["id"],
        name=raw["name"],
        status=raw["status"],
        task=raw["OS-EXT-STS:task_state"],
        host=raw["OS-EXT-SRV-ATTR:host"] or "",
        fault=raw.get("fault", {}).get("message", ""),
    )


def said(error: exceptions.HttpError) -> str:
    """Nova's own words: {"badRequest": {"message": ...}}, which keystoneauth1 does not know."""
    answer: Any = error.response
    try:
        return str(next(iter(answer.json().values()))["message"])
    except (AttributeError, ValueError, LookupError, TypeError, StopIteration):
        return str(error)
