"""`bayesfilt doctor`: what is installed, where it computes, what is missing and how to get it."""

import dataclasses

from bayesfilt.commands.console import say, show_table


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Look at the installation: versions, devices, float64, what is missing and how to get it."""

    def run(self) -> int:
        """Print what `bayesfilt.doctor` finds; 2 if something essential is missing."""
        from bayesfilt.doctor import examine

        findings = examine()
        rows = [(row.subject, row.found, row.status) for row in findings]
        show_table("bayesfilt doctor", ("what:", "found:", "status:"), rows)
        for row in findings:
            if row.remedy:
                say(f"{row.subject}: {row.remedy}")
        missing = [row.subject for row in findings if row.status == "missing"]
        if missing:
            say(f"Missing: {', '.join(missing)}.")
            return 2
        say("All that is needed is here.")
        return 0
