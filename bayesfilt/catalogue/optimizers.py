"""The named optimizers, one row each; `bayesfilt.zoo` holds what builds them.

Quiet and loud mean the RMS summed gradient of a weight against eta/sigma^2. Where a reading is a
limit, the reason says of what and what is left over.
"""

from bayesfilt.catalogue.facts import Facts, OwnNumber

_QUIET_RATE = OwnNumber(
    name="learning_rate",
    default=None,
    meaning="on the mean-loss gradient; by default the dictionary's, sigma^2 batch_size",
)
_QUIET_MOMENTUM_RATE = OwnNumber(
    name="learning_rate",
    default=None,
    meaning="torch's, on the sum of past gradients; by default sigma^2 batch_size (1 - b1)",
)
_OWN_RATE = OwnNumber(
    name="learning_rate", default=None, meaning="by default the setting's, which is the drift's eta"
)
_OWN_DECAY = OwnNumber(
    name="weight_decay",
    default=None,
    meaning="the shrink per step at schedule factor 1; by default learning_rate weight_decay",
)

GRADIENT_DESCENT = (
    Facts(
        name="sgd",
        reading="Gradients so quiet that no belief moves: every variance stays the prior's, so"
        " one learning rate, sigma^2 batch_size, serves all weights.",
        status="limit",
        reason="of gradients far below eta/sigma^2; without the running mean and the decay.",
        sources=("robbins1951stochastic", "aitchison2020bayesian"),
        tags=("REG-1", "REG-3", "FP-1"),
        numbers=(_QUIET_RATE,),
    ),
    Facts(
        name="sgd_l2",
        reading="Quiet gradients under a drift that pulls to 0: with one gain for all weights a"
        " penalty inside the gradient is a pull on the weight, learning rate times weight_decay.",
        status="limit",
        reason="of gradients far below eta/sigma^2; the pull goes with the learning rate, and is"
        " the transition's where sigma^2 batch_size is AdamW's learning rate.",
        sources=("robbins1951stochastic", "loshchilov2019decoupled"),
        tags=("REG-1", "REG-3", "OPT-5"),
        numbers=(_QUIET_RATE,),
        decay="l2",
    ),
    Facts(
        name="momentum",
        reading="A position and a velocity per weight with constant gains, where a gradient moves"
        " the velocity and the velocity the weight.",
        status="approximate",
        reason="a filter that learns a velocity from its position also moves the position itself;"
        " heavy ball's gain there is 0.",
        sources=("polyak1964some", "aitchison2020bayesian"),
        tags=("VEL-1", "VEL-3", "REG-3"),
        numbers=(_QUIET_MOMENTUM_RATE,),
    ),
    Facts(
        name="momentum_l2",
        reading="Heavy ball's position and velocity with constant gains, where the penalty, like a"
        " gradient, pulls the velocity first and through it the weight.",
        status="approximate",
        reason="as for momentum; the drift's pull would act on the weight at once, the penalty's"
        " comes late and is still under way when the learning rate falls.",
        sources=("polyak1964some", "loshchilov2019decoupled"),
        tags=("VEL-1", "VEL-3", "OPT-5"),
        numbers=(_QUIET_MOMENTUM_RATE,),
        decay="l2",
    ),
    Facts(
        name="nesterov",
        reading="A position and a velocity per weight with constant gains, lr and b1 lr, held at"
        " the predicted position: the look-ahead is the filter's prediction.",
        status="approximate",
        reason="the form is the velocity filter's, but where its gains settle small the"
        " velocity's is far below the position's.",
        sources=("nesterov1983method", "sutskever2013importance"),
        tags=("VEL-1", "VEL-3", "KF-2"),
        numbers=(_QUIET_MOMENTUM_RATE,),
    ),
    Facts(
        name="sgdw",
        reading="Quiet gradients under a drift that pulls to 0: gain sigma^2 for every weight, and"
        " the transition's shrink beside it.",
        status="limit",
        reason="of gradients far below eta/sigma^2; the momentum adds gradients up where the"
        " filter has none, and the decay is linear in the schedule.",
        sources=("loshchilov2019decoupled", "aitchison2020bayesian"),
        tags=("REG-3", "OPT-5", "DICT-1"),
        numbers=(_QUIET_MOMENTUM_RATE,),
        decay="lr_scaled",
    ),
)

ADAPTIVE = (
    Facts(
        name="adagrad",
        reading="The loud limit with a drift that dies out, eta_t = learning_rate/sqrt(t), and the"
        " mean square of all gradients so far.",
        status="limit",
        reason="of sigma^2 = inf and small gain; exact as a rewriting, sqrt(t) cancels, but an"
        " optimum that still moves is lost.",
        sources=("duchi2011adaptive", "aitchison2020bayesian"),
        tags=("AW-2", "FP-1", "REG-3"),
        numbers=(
            _OWN_RATE,
            OwnNumber(name="eps", default=1e-10, meaning="outside the root, torch's"),
        ),
    ),
    Facts(
        name="rmsprop",
        reading="The loud limit of the fixed point without a prior and without momentum: gain"
        " eta/sqrt(<g^2>) on the gradient itself.",
        status="limit",
        reason="of sigma^2 = inf and small gain; the mean square starts at 0 and is not debiased,"
        " so first steps are larger, and epsilon stands in the prior's place.",
        sources=("tieleman2012lecture", "aitchison2020bayesian"),
        tags=("FP-1", "REG-3"),
        numbers=(
            OwnNumber(name="b2", default=0.99, meaning="memory of the mean square, torch's alpha"),
        ),
    ),
    Facts(
        name="adam",
        reading="The loud limit of the fixed point for an optimum on a random walk, sigma^2 ="
        " inf: gain eta/sqrt(<g^2>), no pull to 0.",
        status="limit",
        reason="of small gain; epsilon stands in the prior's place, and <g> for g has no"
        " derivation.",
        sources=("kingma2015adam", "aitchison2020bayesian"),
        tags=("FP-1", "REG-3", "OPT-3"),
    ),
    Facts(
        name="adam_l2",
        reading="None: a penalty inside the gradient is the prior observed again at every step.",
        status="none",
        reason="after T steps the prior has been counted T times, and it enters the mean square:"
        " a weight without gradient moves by about the learning rate, whatever the coefficient.",
        sources=("kingma2015adam", "loshchilov2019decoupled"),
        tags=("OPT-1", "OPT-5"),
        decay="l2",
    ),
    Facts(
        name="adamw",
        reading="The loud limit of the fixed point with the drift's own pull to 0:"
        " learning_rate weight_decay = eta^2/(2 sigma^2).",
        status="limit",
        reason="at schedule factor 1; under a schedule its decay is linear in the factor, the"
        " filter's with sigma^2 fixed is quadratic.",
        sources=("loshchilov2019decoupled", "aitchison2020bayesian"),
        tags=("DICT-1", "DICT-2", "FP-1", "KF-4"),
        decay="lr_scaled",
    ),
    Facts(
        name="adamw_paper",
        reading="AdamW as its paper prints it: the number for the decay is the shrink itself,"
        " eta^2/(2 sigma^2), times the schedule's factor.",
        status="limit",
        reason="as for adamw, whose steps it takes from one setting; the two part where the"
        " learning rate changes and the written number does not.",
        sources=("loshchilov2019decoupled", "aitchison2020bayesian"),
        tags=("DICT-1", "DICT-2", "FP-1", "KF-4"),
        numbers=(_OWN_DECAY,),
        decay="paper",
    ),
    Facts(
        name="adamw_filter",
        reading="AdamW whose decay follows the drift through a schedule: eta is scaled, sigma^2 is"
        " not, so the shrink eta^2/(2 sigma^2) is quadratic in the factor.",
        status="limit",
        reason="of loud gradients and small gain, at every factor of the schedule.",
        sources=("aitchison2020bayesian", "loshchilov2019decoupled"),
        tags=("DICT-1", "DICT-2", "OPT-6", "KF-4"),
        numbers=(_OWN_DECAY,),
        decay="filter",
    ),
    Facts(
        name="nadam",
        reading="Adam's loud limit with a look-ahead along the momentum, as a filter with a"
        " velocity takes its gradients at the predicted position.",
        status="approximate",
        reason="one number, b1, stands for the velocity's memory and for both gains.",
        sources=("dozat2016incorporating", "aitchison2020bayesian"),
        tags=("VEL-1", "FP-1"),
    ),
    Facts(
        name="nadamw",
        reading="The same with the drift's pull to 0, learning_rate weight_decay per step.",
        status="approximate",
        reason="as for nadam; the decay as for adamw.",
        sources=("dozat2016incorporating", "loshchilov2019decoupled"),
        tags=("VEL-1", "FP-1", "DICT-1"),
        decay="lr_scaled",
    ),
    Facts(
        name="adam_large_eps",
        reading="AdamW whose epsilon is the prior, eta/sigma^2 of the summed gradient: quiet"
        " gradients get SGD's step, loud ones Adam's.",
        status="approximate",
        reason="a sum where the fixed point has a hyperbola; the gains are never more than a fifth"
        " apart.",
        sources=("choi2019empirical", "aitchison2020bayesian"),
        tags=("FP-1", "FP-2", "DICT-1"),
        decay="lr_scaled",
    ),
    Facts(
        name="adamc",
        reading="AdamW with decay wd lr^2/peak: what a drift of scale lr about a prior of fixed"
        " sigma^2 = peak/(2 wd) does to its mean, found from another side.",
        status="limit",
        reason="of loud gradients and small gain; proposed for normalised layers, here for all"
        " weights; the steps are adamw_filter's.",
        sources=("defazio2025gradients", "chou2025correction"),
        tags=("DICT-2", "OPT-6", "KF-4"),
        decay="filter",
    ),
    Facts(
        name="power_adam",
        reading="The best constant gains where the drift's variance goes like the mean-square"
        " gradient to the power 1 - 2 power; 1/2 is an equal drift for all, Adam.",
        status="approximate",
        reason="no prior, a fixed gain and a given law between drift and gradient; which power a"
        " network likes says how its optima drift.",
        sources=("aitchison2020bayesian",),
        tags=("AW-3", "EQ-6"),
        numbers=(
            OwnNumber(name="power", default=0.5, meaning="of the mean square; 0: none, 1/2: Adam"),
            OwnNumber(
                name="learning_rate",
                default=None,
                meaning="of units weight gradient^(2 power - 1); by default the setting's",
            ),
        ),
        decay="lr_scaled",
    ),
    Facts(
        name="amsgrad",
        reading="None: a step that never grows again, whatever the gradients do.",
        status="none",
        reason="a variance that cannot grow belongs to an optimum at rest, and would then fall"
        " like 1/t; the largest mean square so far is the belief of neither.",
        sources=("reddi2018convergence",),
        tags=("AW-1", "RIC-4"),
    ),
    Facts(
        name="amsgrad_optax",
        reading="None: the largest mean square ever seen, kept for good.",
        status="none",
        reason="as for amsgrad; optax takes the maximum after the bias correction, so the noise"
        " of the first gradients stays in it for ever.",
        sources=("reddi2018convergence", "deepmind2020jax"),
        tags=("AW-1",),
    ),
    Facts(
        name="normalized",
        reading="None: every unit's incoming weights turn and keep their length.",
        status="none",
        reason="the drift's pull to 0 only balances lengths on average, with a steady turn per"
        " step; here both are imposed, and a sphere has no prior of its own.",
        sources=("zhang2017normalized", "kosson2024rotational"),
        tags=("DP-1", "DP-2", "EQ-1", "EQ-4"),
        numbers=(
            OwnNumber(
                name="output_axis",
                default=0.0,
                meaning="axis of a weight matrix that counts units; -1 for x @ W",
            ),
        ),
    ),
    Facts(
        name="adagrad_optax",
        reading="AdaGrad that begins with 0.1 in its sum of squares: precision that no gradient"
        " brought; epsilon stands inside the root.",
        status="approximate",
        reason="as for adagrad, once the sum has left 0.1 behind.",
        sources=("duchi2011adaptive", "deepmind2020jax"),
        tags=("AW-2",),
        numbers=(_OWN_RATE,),
    ),
)

FILTERS = (
    Facts(
        name="brmsprop",
        reading="The diagonal filter of every gradient by itself: adabayes with b1 = 0.",
        status="first order",
        reason="the recursion is exact once a squared gradient is called a precision; the decay"
        " is tied to first order and acts before the step.",
        sources=("aitchison2018unified", "aitchison2020bayesian"),
        tags=("OPT-2", "KF-1", "KF-2", "KF-3"),
        decay="filter",
    ),
    Facts(
        name="badam",
        reading="The velocity filter: each optimum has a position and a velocity, and the weights"
        " held are the predicted position.",
        status="exact",
        reason="once a squared gradient is called a precision; its decay is the exact one.",
        sources=("aitchison2018unified", "kalman1960new"),
        tags=("VEL-5", "VEL-1", "VEL-2", "VEL-3"),
        numbers=(
            OwnNumber(
                name="velocity_shrink",
                default=None,
                meaning="of the velocity per step; by default 1 - b1",
            ),
            OwnNumber(
                name="velocity_drift_scale",
                default=None,
                meaning="the velocity's move per step; by default velocity_shrink * eta",
            ),
        ),
        decay="exact",
    ),
    Facts(
        name="adabayes",
        reading="The diagonal filter run step by step: a squared gradient is a precision, the"
        " posterior variance the learning rate.",
        status="first order",
        reason="the variance is the exact recursion; the decay is tied to first order and acts"
        " before the step, and <g> for g has no derivation.",
        sources=("aitchison2020bayesian", "aitchison2020code"),
        tags=("OPT-2", "KF-1", "KF-3", "OPT-6"),
        decay="filter",
    ),
    Facts(
        name="adabayes_fixed_point",
        reading="The diagonal filter at its fixed point in closed form: Adam with a prior.",
        status="first order",
        reason="in the gain, eta times the RMS summed gradient; the mean square stands for a"
        " precision that has stopped changing.",
        sources=("aitchison2020bayesian", "aitchison2020code"),
        tags=("OPT-3", "FP-1", "OPT-6"),
        decay="filter",
    ),
    Facts(
        name="steady_state",
        reading="The diagonal filter once its variance has settled, at any gain.",
        status="limit",
        reason="of a long time at one precision; a recursion that is still on its way is adabayes.",
        sources=("kalman1960new", "aitchison2020bayesian"),
        tags=("OPT-4", "RIC-1", "OPT-6"),
        decay="filter",
    ),
)

CORRELATED = (
    Facts(
        name="kalman_full",
        reading="The filter with the covariance of all weights, run step by step: a gradient"
        " tells of every weight whose optimum hangs together with its own.",
        status="first order",
        reason="the covariance is the exact recursion of one gradient's outer product; the decay"
        " is tied to first order and acts before the step, and <g> for g has no derivation.",
        sources=("kalman1960new", "aitchison2018unified"),
        tags=("MAT-10", "OPT-6"),
        decay="filter",
    ),
    Facts(
        name="kalman_kronecker",
        reading="The recursive filter of a whole layer, in the axes of its gradients' row and"
        " column moments; other leaves as adabayes.",
        status="approximate",
        reason="a gradient's square along each pair of axes is a precision, no product of factors,"
        " and correlations that a turn of the axes makes are dropped; <g> for g has no derivation.",
        sources=("aitchison2018unified", "martens2015optimizing"),
        tags=("KRON-5", "OPT-6"),
        numbers=(
            OwnNumber(name="basis_every", default=10.0, meaning="steps between refreshed axes"),
            OwnNumber(
                name="max_dimension",
                default=1024.0,
                meaning="longest side of a layer with axes of its own",
            ),
        ),
        decay="filter",
    ),
)

OPTIMIZER_FACTS = (*GRADIENT_DESCENT, *ADAPTIVE, *FILTERS, *CORRELATED)
