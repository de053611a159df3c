"""Between the server's model and a round's messages: the model is whole, a message holds what the round exchanges."""

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from nvflare.app_common.abstract.shareable_generator import ShareableGenerator
from nvflare.app_common.app_constant import AppConstants

from fedpeft.flare.job_run import job_run
from fedpeft.flare.messages import META, content


class PayloadGenerator(ShareableGenerator):
    """Sends a round's download, takes the round's average into the model."""

    def learnable_to_shareable(self, model_learnable: ModelLearnable, fl_ctx: FLContext) -> Shareable:
        """The round's download, with the run's identity."""
        weights = model_learnable[ModelLearnableKey.WEIGHTS]
        keys = job_run(fl_ctx).download(fl_ctx.get_prop(AppConstants.CURRENT_ROUND))
        dxo = DXO(DataKind.WEIGHTS, data={key: weights[key] for key in keys})
        dxo.set_meta_prop(META, model_learnable[ModelLearnableKey.META][META])
        return dxo.to_shareable()

    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> ModelLearnable:
        """The model with the aggregator's average in it; what the round did not train stays as it is."""
        model = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
        weights = model[ModelLearnableKey.WEIGHTS] | content(shareable, (DataKind.WEIGHTS,)).data
        return make_model_learnable(weights, model[ModelLearnableKey.META])
