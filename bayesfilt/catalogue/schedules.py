"""The schedules, one row each: factors on the learning rate, 1 at its base.

To the filter a schedule is one of drift_scale, so of the variance that each step adds. The
recursion follows it with a lag of its own; Adam and the fixed point take the new gain at once.
"""

from bayesfilt.catalogue.facts import Facts, OwnNumber

_PERIODS = (
    OwnNumber(
        name="T_0", default=None, meaning="steps of the first period; by default num_steps/15"
    ),
    OwnNumber(
        name="T_mult", default=2.0, meaning="how many times longer each next period is; >= 1"
    ),
)

SCHEDULE_FACTS = (
    Facts(
        name="constant",
        reading="The optimum drifts at one scale for ever.",
        status="exact",
        reason="nothing is scheduled.",
        sources=("aitchison2020bayesian",),
        tags=("OU-3",),
    ),
    Facts(
        name="step",
        reading="The optimum's drift slows down at set times; the belief then narrows as"
        " gradients come in, while Adam's gain falls at once.",
        status="exact",
        reason="drift_scale is a known function of the step.",
        sources=("loshchilov2019decoupled",),
        tags=("KF-3", "RIC-6"),
        numbers=(
            OwnNumber(name="drop", default=0.1, meaning="factor at each of the three times"),
            OwnNumber(name="first", default=0.3, meaning="first time, as a fraction of the run"),
            OwnNumber(name="second", default=0.6, meaning="second time; equal times drop twice"),
            OwnNumber(name="third", default=0.8, meaning="third time; 1 is never"),
        ),
    ),
    Facts(
        name="exponential",
        reading="The optimum's drift dies out by one factor per step.",
        status="exact",
        reason="drift_scale is a known function of the step.",
        sources=("aitchison2020bayesian",),
        tags=("KF-3", "RIC-6"),
        numbers=(OwnNumber(name="end", default=0.01, meaning="factor at the end of the run"),),
    ),
    Facts(
        name="cosine",
        reading="The optimum's drift slows to rest; a filter's gain lags behind, for a variance"
        " falls no faster than 1/(1/p + precision seen since).",
        status="exact",
        reason="drift_scale is a known function of the step.",
        sources=("loshchilov2017sgdr", "loshchilov2019decoupled"),
        tags=("KF-3", "RIC-4", "RIC-6"),
        numbers=(OwnNumber(name="end", default=0.0, meaning="factor at the end of the run"),),
    ),
    Facts(
        name="warm_restarts",
        reading="A pulse of process noise: drift_scale jumps back to its base, and the belief"
        " widens again over about 1/(2 eta sqrt(h)) steps; a fixed point's gain jumps.",
        status="exact",
        reason="drift_scale is a known function of the step.",
        sources=("loshchilov2017sgdr", "loshchilov2019decoupled"),
        tags=("KF-3", "RIC-3", "RIC-6"),
        numbers=_PERIODS,
    ),
    Facts(
        name="cyclical",
        reading="Periodic process noise: drift_scale rises and falls in triangles.",
        status="exact",
        reason="drift_scale is a known function of the step.",
        sources=("smith2017cyclical",),
        tags=("KF-3", "RIC-3"),
        numbers=(
            OwnNumber(name="low", default=0.25, meaning="least factor, where each cycle begins"),
            OwnNumber(
                name="half_cycle",
                default=None,
                meaning="steps from the least to 1; by default num_steps/8",
            ),
        ),
    ),
    Facts(
        name="reduce_on_plateau",
        reading="None: the factor answers to the losses that the run has met.",
        status="none",
        reason="the drift of a state-space model is set before its observations are seen; here"
        " it follows them, and no function of the step gives it.",
        sources=("deepmind2020jax",),
        tags=("KF-3",),
        numbers=(
            OwnNumber(name="factor", default=0.1, meaning="on the whole step, decay included"),
            OwnNumber(name="patience", default=10.0, meaning="means without a new best"),
            OwnNumber(name="window", default=50.0, meaning="losses in one mean"),
            OwnNumber(name="cooldown", default=0.0, meaning="means to wait after a reduction"),
        ),
    ),
    Facts(
        name="normalised_decay",
        reading="Warm restarts whose prior widens with the period: sigma^2 grows like the root of"
        " the period's steps, the decay falls like its inverse.",
        status="approximate",
        reason="the rule follows the budget, lam = lam_norm sqrt(b/(B T)); no drift is said to"
        " know how long a run will last.",
        sources=("loshchilov2019decoupled",),
        tags=("DICT-3", "OU-1", "RIC-3"),
        numbers=_PERIODS,
    ),
)
