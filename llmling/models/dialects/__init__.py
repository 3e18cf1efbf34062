"""How providers write their answers, as far as that is read here without litellm."""
