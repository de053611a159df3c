"""Data sets: what their labels mean and how their volumes are preprocessed.

The site file says where a data set's files are, and ``datalist.json`` which cases it has. No code branches on a data
set's name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from fedpeft.common.registry import Registry
from fedpeft.config.preprocessing import PREPROCESSINGS, Preprocessing, Window

# The name of the entry's own preprocessing.
STANDARD = "standard"
# The FLAP-SAM paper's text: the standard one, then the input format of MA-SAM, which scales each stack to 0 to 1.
PAPER = "paper"
AS_MA_SAM = {"stack_range": "minmax", "fit": "stretch"}


@dataclass(frozen=True)
class Dataset:
    """A data set's entry.

    Attributes:
        name: what commands, jobs and site files call it.
        title: for people.
        labels: (index, name) pairs from 0 on, which in segmentation is the background; None if the datalists give the
            table.
        preprocessing: how volumes become the network's input, called "standard".
        task: what it is labelled for.
        published: name -> preprocessing of a published code, such as "authors", with this data set's own constants.
        site_weights: site -> the constant by which the FLAP-SAM paper's code weights it; None if there are none.
    """

    name: str
    title: str
    labels: tuple[tuple[int, str], ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    task: str = "segmentation"
    published: Mapping[str, Preprocessing] = field(default_factory=dict)
    site_weights: Mapping[str, float] | None = None

    def preprocessing_called(self, name: str) -> Preprocessing:
        """The preprocessing of a name: the data set's own, or else the generic one.

        Raises:
            ValueError: there is none; the message lists those that exist.
        """
        text = self.preprocessing.model_copy(update=AS_MA_SAM)
        known = {**PREPROCESSINGS, PAPER: text, **self.published, STANDARD: self.preprocessing}
        if name not in known:
            raise ValueError(
                f"data set {self.name}: preprocessing is {name!r}, expected one of {', '.join(sorted(known))}"
            )
        return known[name]


DATASETS: Registry[Dataset] = Registry("data set")


def register_datasets(*entries: Dataset) -> None:
    """Add data sets; ValueError if there is one of that name."""
    for entry in entries:
        DATASETS.register(entry.name, entry)


def dataset(name: str) -> Dataset:
    """The entry called ``name``; ValueError if there is none."""
    return DATASETS.find(name)


# Fed-KiTS in FLAP-SAM's code: bounds, mean and standard deviation of each site in Hounsfield units. Their names in the
# code are those of nnU-Net's statistics, which are of labelled voxels; so their origin is inferred, not documented.
KITS19_WINDOWS = tuple(
    Window(low=low, high=high, mean=mean, std=std, site=f"site-{letter}")
    for letter, low, high, mean, std in (
        ("A", -66.0, 208.0, 100.54512023925781, 61.67744445800781),
        ("B", -77.0, 341.0, 110.72207641601562, 84.01102447509766),
        ("C", -89.0, 325.0, 123.67296600341797, 97.30636596679688),
        ("D", -64.0, 202.0, 71.06884002685547, 52.98845672607422),
        ("E", -64.0, 236.0, 91.36735534667969, 60.98041915893555),
        ("F", -82.0, 288.0, 105.31212615966797, 76.49889373779297),
    )
)


def _mean_of(windows: Sequence[Window]) -> Window:
    """The mean of each constant, for every site."""
    means = {name: fmean(getattr(window, name) for window in windows) for name in ("low", "high", "mean", "std")}
    return Window.model_validate(means)


IXI = Preprocessing(scope="volume", foreground=None, scale="minmax", clip=None, canvas=(64, 64))

SYNAPSE_ORGANS = (
    "spleen", "right kidney", "left kidney", "gallbladder", "liver", "stomach", "aorta", "pancreas",
)  # fmt: skip
BTCV_ORGANS = (
    "spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver", "stomach", "aorta",
    "inferior vena cava", "portal and splenic veins", "pancreas", "adrenal glands",
)  # fmt: skip
# Hounsfield units -125 to 275 become 0 to 1.
SYNAPSE = Preprocessing(
    scope="volume", foreground=None, scale="minmax", clip=None, windows=(Window(low=-125.0, high=275.0),)
)

register_datasets(
    Dataset("phantom", "Synthetic organs with lesions", ((0, "background"), (1, "organ"), (2, "lesion"))),
    # Each volume by itself: the scanners are unknown, and one dark scan must not shift its whole site.
    Dataset(
        "folder",
        "Volumes from a tree of <site>/<case>/ folders",
        preprocessing=Preprocessing(scope="volume"),
    ),
    # The standard of the next three follows the FLAP-SAM paper, "authors" its code.
    Dataset(
        "kits19",
        "Fed-KiTS: kidneys with tumours in CT, six sites",
        ((0, "background"), (1, "kidney"), (2, "tumour")),
        Preprocessing(foreground=None, percentiles=(5.0, 95.0), clip=None),
        published={
            "authors": Preprocessing(
                scope="volume",
                foreground=None,
                clip=None,
                # The code knows no other site, and a file of `infer` has none: both take the mean of the six.
                windows=(*KITS19_WINDOWS, _mean_of(KITS19_WINDOWS)),
                stack_range="minmax",
                fit="stretch",
            )
        },
        site_weights={
            "site-A": 0.03,
            "site-B": 0.18,
            "site-C": 0.15,
            "site-D": 0.10,
            "site-E": 0.05,
            "site-F": 0.49,
        },
    ),
    Dataset(
        "ixi",
        "Fed-IXI: the brain in small T1 MR volumes, three hospitals",
        ((0, "background"), (1, "brain")),
        IXI,
        # The code has nothing for IXI but what it does to every stack.
        published={"authors": IXI.model_copy(update=AS_MA_SAM)},
        site_weights={"Guys": 0.55, "HH": 0.32, "IOP": 0.13},
    ),
    Dataset(
        "prostate",
        "The prostate in T2 MR, six hospitals",
        ((0, "background"), (1, "prostate")),
        Preprocessing(foreground=None, clip=None),
        # FLAP-SAM took this step from MA-SAM.
        published={"authors": PREPROCESSINGS["authors"], "ma_sam": PREPROCESSINGS["authors"]},
        site_weights={"RUNMC": 0.15, "BMC": 0.26, "I2CVB": 0.31, "UCL": 0.08, "BIDMC": 0.13, "HK": 0.07},
    ),
    Dataset("images", "Images of one class each, from class folders or a table", task="classification"),
    Dataset(
        "isic2019",
        "Fed-ISIC2019: skin lesions in dermoscopy, six centres",
        tuple(enumerate(("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"))),
        task="classification",
    ),
    Dataset(
        "decathlon",
        "A task of the Medical Segmentation Decathlon",
        preprocessing=Preprocessing(scope="volume"),
    ),
    # The window of SAMed's code, and that of MA-SAM's; their preprocessings "samed" and "ma_sam" also stretch slices.
    Dataset(
        "synapse",
        "Synapse: eight organs in abdominal CT (BTCV), with SAMed's split",
        tuple(enumerate(("background", *SYNAPSE_ORGANS))),
        SYNAPSE,
    ),
    Dataset(
        "btcv",
        "BTCV: twelve organs in abdominal CT, with MA-SAM's split",
        tuple(enumerate(("background", *BTCV_ORGANS))),
        SYNAPSE.model_copy(update={"windows": (Window(low=-200.0, high=250.0),)}),
    ),
    # Pixels are 0 to 1 before the backbone's colours normalise them; of the preprocessing, only ``fit`` applies.
    Dataset(
        "image_masks",
        "Images with masks: JPEG or PNG, colour or grey",
        preprocessing=Preprocessing(scope="volume", foreground=None, scale="minmax", clip=None),
        task="image_segmentation",
    ),
)
