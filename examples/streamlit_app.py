"""A chat page with Streamlit: a conversation for each visitor, answers as they come.

    pip install streamlit
    streamlit run examples/streamlit_app.py

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import os

import streamlit as st

from llmbridge import Client, LLMBridgeError, Timeout

MODEL = os.environ.get("LLMBRIDGE_MODEL", "demo")


@st.cache_resource
def shared_client() -> Client:
    """One client for all visitors: they share its connections."""
    return Client(MODEL, timeout=Timeout(idle=60, total=300))


visit = st.session_state
if "talk" not in visit:
    visit.talk = shared_client().conversation(system="Answer briefly.")
if "stream" in visit:
    visit.stream.close()  # the run before may still read: Streamlit does not wait for its end

st.title("Chat")
for message in visit.talk.messages:
    st.chat_message(message.role).markdown(message.text)

if prompt := st.chat_input("Your question"):
    st.chat_message("user").markdown(prompt)
    try:
        with visit.talk.ask(prompt) as visit.stream:
            st.chat_message("assistant").write_stream(visit.stream)
    except LLMBridgeError as error:
        st.error(f"The answer broke off: {error.message}")
